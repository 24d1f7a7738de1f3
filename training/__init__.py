"""How the checkpoint in `models/tiny` is made: its text, its training, and the figures kept beside it."""
