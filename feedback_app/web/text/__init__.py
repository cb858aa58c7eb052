"""Text of models and people as HTML: Markdown, colours of code, reasoning."""
