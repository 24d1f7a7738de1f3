"""In which number formats a deployment runs: what its ranks can do, what is refused, and what is said."""

from __future__ import annotations

from dataclasses import dataclass

from wingspan.deployment import Deployment
from wingspan.errors import InputError
from wingspan.specs.part_precision import Precisions
from wingspan.specs.precision import Precision
from wingspan.specs.reading import choice
from wingspan.specs.running import RowPrecision, WeightType, row_precision

_COMPUTED = {Precision.FP32: WeightType.FLOAT32, Precision.BF16: WeightType.BFLOAT16}
_FORMAT = {kind: precision for precision, kind in _COMPUTED.items()}


@dataclass(frozen=True)
class RunPrecision:
    """Precision of the weights in memory and of rows on their way; what differs from the deployment, a line each."""

    dtype: WeightType
    rows: RowPrecision
    notes: tuple[str, ...] = ()


def run_precision(
    deployment: Deployment | None, source: str, dtype: str | None, rows: str | None
) -> RunPrecision:
    """What is run.

    Args:
        deployment: None = a checkpoint alone.
        source: its name.
        dtype, rows: as asked; None = as the deployment says, or the checkpoint's own.

    Raises:
        InputError: a deployment's weights or rows in a format that ranks do not compute or send in.
    """
    asked = None if dtype is None else choice(dtype, "`dtype`", WeightType)
    asked_rows = None if rows is None else choice(rows, "`row_precision`", RowPrecision)
    if deployment is None:
        return RunPrecision(asked or WeightType.AUTO, asked_rows or RowPrecision.SAME)
    wanted = deployment.precisions
    kind = asked if asked not in (None, WeightType.AUTO) else _weights(wanted, source)
    own = _FORMAT[kind]
    row_kind = asked_rows or _rows(wanted.dispatch, wanted.combine, own, source)
    differing = [
        f"{what} are {own}, not {planned}"
        for what, planned in (
            *_weights_by_part(wanted).items(),
            ("activations", wanted.experts.activations),
            ("cached keys and values", wanted.kv),
            ("attention cores", wanted.core),
        )
        if planned is not own
    ]
    notes = (f"other than {source} says, {'; '.join(differing)}",) if differing else ()
    return RunPrecision(kind, row_kind, notes)


def _weights_by_part(wanted: Precisions) -> dict[str, Precision]:
    formats = {f"{name} weights": part.weights for name, part in wanted.parts.items()}
    alike = len(set(formats.values())) == 1
    return {"weights": wanted.attention.weights} if alike else formats


def _weights(wanted: Precisions, source: str) -> WeightType:
    formats = {part.weights for part in wanted.parts.values()}
    only = next(iter(formats))
    if len(formats) == 1 and only in _COMPUTED:
        return _COMPUTED[only]
    raise InputError(
        f"{source}: {wanted.weights_described}: ranks compute in one of bf16 and fp32; give `dtype` bfloat16 to run "
        "it so, or plan it with bf16 weights"
    )


def _rows(dispatch: Precision, combine: Precision, own: Precision, source: str) -> RowPrecision:
    """The rows' format that sends these; raises where none does."""
    try:
        return row_precision(dispatch, combine, own)
    except InputError as error:
        raise InputError(f"{source}: {error}; give `row_precision` same to run it so") from None
