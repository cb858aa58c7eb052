"""After an erasure: retraining, the live version, locking and deletion, and what people see."""
