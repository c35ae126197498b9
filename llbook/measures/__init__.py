"""Figures of merit of a learning process and of a learning policy."""
