"""The System page: processes, queues, engines, disk, and what may be deleted."""
