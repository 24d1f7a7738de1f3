"""In which precision a checkpoint was published, from its config."""

from __future__ import annotations

from collections.abc import Mapping

from wingspan.errors import InputError
from wingspan.specs.families.reader import Reader
from wingspan.specs.precision import Precision

_DTYPES = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}


def precisions_of(reader: Reader) -> tuple[Precision, Precision]:
    """Read the published precision of all weights but the experts, and that of the experts."""
    dtype = reader.optional("dtype", "torch_dtype") or "bfloat16"
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise InputError(f"{reader.source}: dtype {dtype!r} is not one of {', '.join(_DTYPES)}")
    plain = Precision(_DTYPES[dtype])
    quantization = reader.optional("quantization_config")
    if quantization is None:
        return plain, plain
    if not isinstance(quantization, Mapping):
        raise InputError(f"{reader.source}: quantization_config = {quantization!r} must be an object")
    method = quantization.get("quant_method")
    if method == "fp8":
        return Precision.FP8, Precision.FP8
    if method == "mxfp4":
        return plain, Precision.FP4
    raise InputError(
        f"{reader.source}: quantization_config.quant_method {method!r} is not known (fp8, mxfp4 are); "
        "remove quantization_config and give the precision of the weights in the workload"
    )
