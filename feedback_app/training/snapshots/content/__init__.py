"""What the next snapshot contains, read by a worker: duplicates, languages and lengths."""
