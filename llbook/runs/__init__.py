"""Runs on disk: each one file, found again by its key, with where it comes from."""
