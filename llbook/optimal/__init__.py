"""Learning processes, the gradient of their loss curve, and the search for better policies."""
