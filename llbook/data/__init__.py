"""Data sets, made from explicit seeds."""
