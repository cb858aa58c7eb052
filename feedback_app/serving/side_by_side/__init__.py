"""The page of several runs and their versions side by side."""
