"""What a run would take and do, before it is requested."""
