"""Follow-ups: what readers do after an answer, and how far it agrees with votes."""
