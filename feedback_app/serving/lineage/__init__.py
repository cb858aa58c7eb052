"""Where a version came from, and which versions an example or a vote went into."""
