"""The conversations of a project: their list for admins, their export and their removal."""
