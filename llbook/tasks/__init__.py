"""Learning problems: what the search is told about a model and its data."""
