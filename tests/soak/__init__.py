"""The soak: people use a whole stack for minutes while faults are injected, ordered by a seed.

    python -m tests.soak --minutes 20 --seed 7

`make soak` runs it; test_soak.py runs a short form of it.
"""
