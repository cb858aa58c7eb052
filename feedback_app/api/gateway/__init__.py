"""The OpenAI-compatible API for product code (docs/gateway.md)."""
