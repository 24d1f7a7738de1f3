"""How long one operation takes: roofline, links, memory; calibration constants with their sources."""
