"""Executor 2: runs a deployment for real, on torch.distributed or MPI."""

import os

# What torch and its libraries read when they are imported, so before anything of the runtime imports them.
_BEFORE_TORCH = {
    # Asking NVML instead of CUDA whether there is a GPU leaves this process free to fork ranks that use it.
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
    # A rank that another one left is named by our own line; torch would add a page of C++ frames.
    "TORCH_CPP_LOG_LEVEL": "ERROR",
}
if "OMP_WAIT_POLICY" not in os.environ:
    # Threads that wait for others look again so often, some 30 us, before they sleep. GNU's library looks 30 times as
    # often: where other work takes a core, a step of few rows took a second instead of 40 ms. To sleep at once, which
    # is best there, makes it two thirds slower on a quiet machine.
    _BEFORE_TORCH["GOMP_SPINCOUNT"] = "10000"
for _name, _value in _BEFORE_TORCH.items():
    os.environ.setdefault(_name, _value)
