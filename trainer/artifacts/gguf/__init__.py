"""Adapters and merged models as GGUF files, which llama.cpp reads."""
