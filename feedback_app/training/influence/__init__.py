"""Which votes shaped a version: estimates by groups of votes, and retraining without one."""
