"""How a run is done, as far as a person chooses it by name.

Known without torch, so that a wrong name is said at once.
"""

from enum import StrEnum

from wingspan.errors import InputError
from wingspan.specs.precision import Precision


class Device(StrEnum):
    """Where ranks compute."""

    CPU = "cpu"
    CUDA = "cuda"


class WeightType(StrEnum):
    """The number format of the weights in memory."""

    AUTO = "auto"
    """The checkpoint's own."""
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


class TransportKind(StrEnum):
    """How rows move between ranks."""

    AUTO = "auto"
    """Shared memory inside nodes where it is possible, torch.distributed for the rest."""
    TORCH = "torch"
    """torch.distributed everywhere: gloo or NCCL."""
    SHM = "shm"
    """Shared memory inside nodes, torch.distributed across."""
    MPI = "mpi"
    """MPI everywhere; started by mpirun."""


class RowPrecision(StrEnum):
    """How hidden states travel to the experts."""

    SAME = "same"
    """Rows travel as the model computes them, both ways."""
    BFLOAT16 = "bfloat16"
    FLOAT8 = "float8"
    """Rows travel to the experts in FP8 with one scale per 128 values, and back in BF16."""


def row_precision(dispatch: Precision, combine: Precision, own: Precision) -> RowPrecision:
    """How rows travel that leave in `dispatch` and return in `combine`, where ranks compute in `own`.

    Raises:
        InputError: ranks send no such rows.
    """
    if (dispatch, combine) == (own, own):
        return RowPrecision.SAME
    if combine is Precision.BF16 and dispatch is Precision.BF16:
        return RowPrecision.BFLOAT16
    if combine is Precision.BF16 and dispatch is Precision.FP8:
        return RowPrecision.FLOAT8
    raise InputError(
        f"rows leave in {dispatch} and return in {combine}: ranks send bf16 or fp8 and return bf16, or send as they "
        "compute"
    )


def transport_kind(name: str) -> TransportKind:
    """The kind of a command-line name; raises `InputError` for unknown ones."""
    if name not in [kind.value for kind in TransportKind]:
        raise InputError(f"`transport` {name}: use one of {', '.join(TransportKind)}")
    return TransportKind(name)
