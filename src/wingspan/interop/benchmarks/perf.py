"""What NVIDIA's `genai-perf` and `aiperf` write: `profile_export_genai_perf.json`, `profile_export_aiperf.json`.

Each metric is a block of `unit` and `avg`, of latencies also percentiles (docs.nvidia.com/aiperf, JSON export schema).
The load stands in `input_config`, in other places in other versions: `perf_analyzer.stimulus.concurrency`,
`loadgen.concurrency`, `phases`; so it is looked for.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from wingspan.errors import InputError
from wingspan.interop.benchmarks.load import BenchmarkLoad, SentLoad, number

_SECONDS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "sec": 1.0, "seconds": 1.0}
_STREAMING = "let it stream"


def is_perf(data: Mapping[str, Any]) -> bool:
    """Whether the keys are those of genai-perf or aiperf."""
    return "request_throughput" in data and "request_latency" in data


def read_perf(data: Mapping[str, Any], source: str) -> BenchmarkLoad:
    """A profile of genai-perf or aiperf.

    Raises:
        InputError: a metric is missing, or the load is not said, or not one.
    """
    concurrency = _one(data, "concurrency", source)
    arrivals_per_second = _one(data, "request_rate", source)
    if concurrency is None and arrivals_per_second is None:
        raise InputError(
            f"{source}: input_config names no concurrency and no request_rate; take a whole file"
        )
    sent = SentLoad(
        count=round(_value(data, "request_count", source)),
        prompt_tokens=[_value(data, "input_sequence_length", source)],
        output_tokens=[_value(data, "output_sequence_length", source)],
        start_seconds=None,
        rate_per_second=arrivals_per_second or math.inf,
        concurrency=None if concurrency is None else int(concurrency),
    )
    requests, assumed = sent.requests()
    is_aiperf = "aiperf_version" in data or "schema_version" in data
    names = (data.get("input_config") or {}).get("model_names") if not is_aiperf else None
    return BenchmarkLoad(
        source=source,
        format="aiperf" if is_aiperf else "genai-perf",
        model=names[0] if isinstance(names, list) and names and isinstance(names[0], str) else None,
        requests=requests,
        concurrency=sent.concurrency,
        ttft_seconds=_seconds(data, "time_to_first_token", source),
        tpot_seconds=_seconds(data, "inter_token_latency", source),
        output_tokens_per_second=_value(data, "output_token_throughput", source),
        remarks=("no lengths of single requests: all as long as the mean", *assumed),
    )


def _block(data: Mapping[str, Any], metric: str, source: str) -> Mapping[str, Any]:
    block = data.get(metric)
    if not isinstance(block, Mapping):
        raise InputError(f"{source}: metric {metric} is missing; {_STREAMING}, or take a whole file")
    return block


def _value(data: Mapping[str, Any], metric: str, source: str) -> float:
    return number(_block(data, metric, source), "avg", f"{source}: {metric}")


def _seconds(data: Mapping[str, Any], metric: str, source: str) -> float:
    """The median of a latency."""
    block = _block(data, metric, source)
    unit = block.get("unit")
    if unit not in _SECONDS:
        raise InputError(f"{source}: {metric}: unit = {unit!r}; use one of {', '.join(_SECONDS)}")
    return number(block, "p50", f"{source}: {metric}") * _SECONDS[unit]


def _one(data: Mapping[str, Any], key: str, source: str) -> float | None:
    """The one number above 0 that the configuration has under this key, wherever it stands."""
    varied = (data.get("run_info") or {}).get("variation_values") or {}
    found = {value for name, value in varied.items() if name.split(".")[-1] == key} or set(
        _values(data.get("input_config"), key)
    )
    found = {value for value in found if isinstance(value, int | float) and value and value > 0}
    if len(found) > 1:
        raise InputError(
            f"{source}: several values of {key}: {', '.join(map(str, sorted(found)))}; take one load"
        )
    return float(found.pop()) if found else None


def _values(config: Any, key: str) -> Iterator[Any]:
    """Plain values under a key, warm-up left out."""
    if isinstance(config, Mapping):
        if "warmup" in (config.get("name"), config.get("type")):
            return
        for name, value in config.items():
            if name == key and not isinstance(value, Mapping | list):
                yield value
            elif not str(name).startswith("warmup"):
                yield from _values(value, key)
    elif isinstance(config, list):
        for value in config:
            yield from _values(value, key)
