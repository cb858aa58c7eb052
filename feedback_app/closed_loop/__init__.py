"""The loop's proof: simulated people, a real run, and before-and-after figures with guards."""
