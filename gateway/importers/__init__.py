"""Other gateways' configuration files, understood as far as ours can say the same."""
