"""Snapshots and versions without what was erased."""
