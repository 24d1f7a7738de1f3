"""The seed's own architecture as a transformers model."""
