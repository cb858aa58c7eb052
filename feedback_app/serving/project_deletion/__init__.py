"""Deleting a project for good: the page, and the worker's batches."""
