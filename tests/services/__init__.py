"""Real servers for the tests: PostgreSQL, Redis, Chromium and Promptyard itself, started and stopped cleanly."""
