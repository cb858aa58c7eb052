"""Several runs side by side: curves, settings, data and results."""
