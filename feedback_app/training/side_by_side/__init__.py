"""Several runs side by side: settings, data and results."""
