"""A run's figures for other tools."""
