"""Wingspan: wide expert parallelism for Mixture-of-Experts models, planned, predicted, run and compared."""

__version__ = "0.1.0"
