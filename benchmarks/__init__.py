"""How fast the policy search is: against its published description, and against the machine."""
