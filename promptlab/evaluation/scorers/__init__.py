"""Scorers: each judges one answer. `registry` knows them by the names a plan says."""
