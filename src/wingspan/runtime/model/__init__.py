"""One rank's share of a transformers model: loading, experts, layers."""
