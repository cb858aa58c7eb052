"""Backup and restore of database and artifacts, as files that do not depend on the database.

A backup is a directory: one compressed JSONL file per table, the artifacts that the rows name, and
a manifest with the SHA-256 of every file.
"""
