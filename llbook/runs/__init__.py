"""Runs: what experiments computed, on disk, with the key that finds it and where it comes from."""
