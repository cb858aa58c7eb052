"""The curves of a run, for plots."""
