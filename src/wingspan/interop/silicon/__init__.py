"""Measurements that others published: read them, predict them, and judge the predictions."""
