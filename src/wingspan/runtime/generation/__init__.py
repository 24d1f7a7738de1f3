"""Prompts in, tokens out: batches, caches, sampling, micro-batches."""
