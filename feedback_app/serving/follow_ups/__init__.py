"""Recording what readers do after an answer, in the demo and in products."""
