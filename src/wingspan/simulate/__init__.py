"""Executor 1: predicts a schedule's timeline on a cluster."""
