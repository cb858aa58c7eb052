"""Sweeps: several runs on one snapshot, to find settings by the validation examples."""
