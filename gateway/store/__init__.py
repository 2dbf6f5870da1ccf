"""SQL of keys and usage, as expressions; frozen dataclasses out."""
