"""Files of benchmarks that were run on engines: what a load sent, and what its requests met."""
