"""Predictions beside what others published of whole engines: each figure, groups, trends, decisions."""
