"""Artifacts in an object store: directories that several hosts read, one of them writes.

Imports neither Django nor torch, so that the web app, the trainer and jobs on other hosts use it.
"""
