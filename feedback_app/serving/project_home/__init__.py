"""The first page of a project: how the loop stands, what comes next, and what waits for whom."""
