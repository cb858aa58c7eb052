"""Training a run once more from its snapshot, to see that the same adapter comes out."""
