"""Which files may be deleted, and deleting them when an operator asks for it."""
