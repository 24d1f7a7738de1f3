"""Ranks that a launcher started meet before anything else: who is there, on which hosts, with the same input."""
