"""Importing examples and prompts from files, in chunks and resumable."""
