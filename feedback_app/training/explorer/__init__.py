"""A run's training examples by how they fit the trained model: filters, plot and actions."""
