"""Who serves upstream models: one small class for each way to reach them."""
