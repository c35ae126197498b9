"""Experiments: from validated parameters to a run kept on disk."""
