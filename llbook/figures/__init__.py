"""Measures in, Matplotlib figures out: nothing here trains."""
