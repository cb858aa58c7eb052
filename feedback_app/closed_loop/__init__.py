"""The proof of the loop: simulated annotators, a real run, figures before and after."""
