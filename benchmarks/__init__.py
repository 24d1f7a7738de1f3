"""Comparisons by the clock: each prints medians and ratios from one run, side by side."""
