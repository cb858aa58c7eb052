"""What configurations and requests say of chats."""
