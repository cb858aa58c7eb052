"""Prospect's trainer and engine: pure machine learning, no web, no database, no queue."""

import os

# Trainer, engine and web share the cores of a small machine. OpenMP threads that spin while they
# wait for each other starve the others and, when preempted, themselves: steps were seen to take
# five times as long. Read when torch is loaded, therefore set before any of our modules loads it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
