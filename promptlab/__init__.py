"""Tracking, registry, evaluation and the browser workbench. Talks to the gateway over HTTP only."""
