"""Continuous time: flows, costates, exact small optima, and tasks with closed forms."""
