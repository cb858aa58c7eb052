"""How well the influence of votes finds a person who votes the opposite."""
