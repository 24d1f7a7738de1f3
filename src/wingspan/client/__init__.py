"""Loads an OpenAI-compatible server, ours or another, and times what it answers."""
