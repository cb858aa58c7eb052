"""Benchmark of the gate: adapters that must not pass, and one that should."""
