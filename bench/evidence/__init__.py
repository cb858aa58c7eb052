"""Evidence that the loop improves models: eight studies with simulated annotators."""
