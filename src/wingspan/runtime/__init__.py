"""Executor 2: runs a deployment for real, on torch.distributed or MPI."""

import os

# What torch and its libraries read when they are imported, so before anything of the runtime imports them.
_BEFORE_TORCH = {
    # Threads that wait for others sleep. They would spin, for most of a step of few rows: twice the processor time, and
    # where other work takes a core, a step of a second instead of forty milliseconds.
    "OMP_WAIT_POLICY": "PASSIVE",
    # Asking NVML instead of CUDA whether there is a GPU leaves this process free to fork ranks that use it.
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
    # A rank that another one left is named by our own line; torch would add a page of C++ frames.
    "TORCH_CPP_LOG_LEVEL": "ERROR",
}
for _name, _value in _BEFORE_TORCH.items():
    os.environ.setdefault(_name, _value)
