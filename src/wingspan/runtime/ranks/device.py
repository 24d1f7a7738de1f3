"""The device on which a rank computes, and its share of the machine's cores."""

from __future__ import annotations

import os
import platform

import torch

from wingspan.errors import InputError, RunError
from wingspan.host import usable_cores
from wingspan.runtime.ranks.world import World


def select_device(name: str) -> torch.device:
    """The device of a command-line name, checked to be there."""
    if name not in ("cpu", "cuda"):
        raise InputError(f"`device` {name}: use cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("`device` cuda: torch sees no CUDA device here; use `device` cpu")
    return torch.device(name)


def take_share(world: World, device: torch.device) -> None:
    """Let this rank compute on its GPU, or on its part of the host's cores where nobody has set another.

    The first that a rank does with torch: see the thread pool.
    """
    ranks_here = min(world.ranks_per_node, world.size)
    given = "OMP_NUM_THREADS" in os.environ
    # In a forked rank this also puts a new thread pool in the place of the parent's, whose threads did not come along.
    # Left to the first use, several threads (a checkpoint's loaders) would replace it at once, without a lock.
    torch.set_num_threads(torch.get_num_threads() if given else max(1, usable_cores() // ranks_here))
    if device.type == "cuda":
        # A launcher may show each rank its own GPU only; ranks beyond those that are seen share them.
        torch.cuda.set_device(world.local_rank % torch.cuda.device_count())


def check_can_fork(device: torch.device) -> None:
    """Raise `RunError` where this process has used CUDA already: a fork of it cannot."""
    if device.type == "cuda" and torch.cuda.is_initialized():
        raise RunError(
            "this process has used CUDA, so ranks cannot be forked from it; start ranks before anything else "
            "touches the GPU, or by torchrun"
        )


def gpu_name() -> str:
    """Names this rank's GPU among all of all machines, for people too."""
    index = torch.cuda.current_device()
    properties = torch.cuda.get_device_properties(index)
    uuid = getattr(properties, "uuid", None)
    return f"{properties.name} {uuid or f'number {index} of {platform.node()}'}"
