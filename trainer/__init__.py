"""Prospect's trainer and engine: pure machine learning, no web, no database, no queue."""

import os

# Trainer, engine and web share the cores of a small machine. OpenMP threads that spin while they
# wait for each other starve the others and, when preempted, themselves: steps were seen to take
# five times as long. Read when torch is loaded, therefore set before any of our modules loads it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# A very short spin before sleeping wins back 15 % of a lone step and costs 12 % of a contended one;
# ten times as long doubles the contended one (docs/log.md).
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
