"""Versions that were trained elsewhere: their files are checked, and the gate judges them."""
