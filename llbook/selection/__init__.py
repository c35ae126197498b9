"""Practical data selection, measured against the best known policy."""
