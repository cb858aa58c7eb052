"""Pushing a version's files to a repository of a model hub, or to object storage."""
