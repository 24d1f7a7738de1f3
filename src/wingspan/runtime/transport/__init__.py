"""How bytes move between ranks: torch.distributed, shared memory, MPI."""
