"""Exports of other products: their thumbs, recognised row by row.

Each module reads one format (docs/import-export.md) and returns the votes of a row, or None if the
row is not of its format.
"""
