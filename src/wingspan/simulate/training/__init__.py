"""Training on many GPUs: memory by part, and how long a step takes, for each way to spread it."""
