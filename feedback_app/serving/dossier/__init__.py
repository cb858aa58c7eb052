"""The dossier of a version: what it is and why it went live, in one signed file."""
