"""The page of a project's audit trail."""
