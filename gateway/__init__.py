"""The reverse proxy: one OpenAI-compatible address for every model, with keys, limits and usage records."""
