"""What this server does a second, measured against a stand-in provider on the same machine."""
