"""What a version's training examples do to its loss on validation examples."""
