"""Care of an installation: backup, restore, and checks of its health."""
