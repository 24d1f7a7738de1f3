"""Deciding, while a run goes on, which expert lives where: loads in, orders out. Imports no torch and moves nothing."""
