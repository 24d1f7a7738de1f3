"""Executor 2: runs a deployment for real, on torch.distributed or MPI."""
