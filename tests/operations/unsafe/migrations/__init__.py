"""Migrations of an invented table that break the rule of CONTRIBUTING.md, and two that do not."""
