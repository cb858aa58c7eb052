"""Files of examples and prompts coming in: read, recognised, written in chunks, resumable."""
