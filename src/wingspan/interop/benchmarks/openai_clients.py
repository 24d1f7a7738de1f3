"""What `vllm bench serve` and `sglang.bench_serving` write: flat objects, alike in most keys.

Fields: vllm-project/vllm, module `vllm.benchmarks.serve`; sgl-project/sglang, `sglang.bench_serving`, whose
lines are one object per run. Milliseconds where a key ends in `_ms`, else seconds; lists are one value per request.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wingspan.errors import InputError
from wingspan.interop.benchmarks.load import BenchmarkLoad, SentLoad, limit, number, numbers, rate

_DETAILED = {"vllm": "--save-detailed", "sglang": "--output-details"}
_NOT_USED = ("itls", "generated_texts", "errors", "server_info", "latencies", "queue_times")


def is_vllm(data: Mapping[str, Any]) -> bool:
    """Whether the keys are those of `vllm bench serve`."""
    return {"num_prompts", "request_rate", "total_input_tokens"} <= data.keys()


def is_sglang(data: Mapping[str, Any]) -> bool:
    """Whether the keys are those of `sglang.bench_serving`."""
    return {"dataset_name", "request_rate", "total_input_tokens"} <= data.keys() and not is_vllm(data)


def read_vllm(data: Mapping[str, Any], source: str) -> BenchmarkLoad:
    """A result of `vllm bench serve --save-result`, with or without `--save-detailed`.

    Raises:
        InputError: a figure is missing, or the load was raised while it ran.
    """
    if data.get("ramp_up_strategy") is not None:
        raise InputError(f"{source}: its rate was raised while it ran (ramp_up_strategy); take a steady load")
    return _read(
        data, source, "vllm", "vllm bench serve", data.get("model_id"), "spec_decode_acceptance_length"
    )


def read_sglang(data: Mapping[str, Any], source: str) -> BenchmarkLoad:
    """A line of `sglang.bench_serving --output-file`, with or without `--output-details`.

    Raises:
        InputError: a figure is missing, or the load followed a trace's times, which the file does not have.
    """
    if data.get("request_rate") == "trace":
        raise InputError(
            f"{source}: its requests came at a trace's times, which the file has not; take a rate"
        )
    return _read(data, source, "sglang", "sglang.bench_serving", None, "accept_length")


def _read(
    data: Mapping[str, Any], source: str, kind: str, program: str, model: Any, tried_key: str
) -> BenchmarkLoad:
    count = int(number(data, "completed", source, "no request was answered; look at the server"))
    prompts, outputs = numbers(data, "input_lens", source), numbers(data, "output_lens", source)
    starts = numbers(data, "start_times", source)
    detailed = prompts is not None and outputs is not None
    arrivals_per_second = rate(data, "request_rate", source)
    remarks = []
    if detailed:
        prompts, outputs, starts = _answered(prompts, outputs, starts, count, source)
    else:
        prompts = [number(data, "total_input_tokens", source) / count]
        outputs = [number(data, "total_output_tokens", source) / count]
        starts = None
        remarks.append(
            f"no lengths of single requests ({_DETAILED[kind]} writes them): all as long as the mean"
        )
    if starts is None and data.get("burstiness", 1.0) != 1.0 and arrivals_per_second < float("inf"):
        raise InputError(
            f"{source}: burstiness = {data['burstiness']}: arrivals unlike a Poisson process's are taken from "
            "start_times, which the file has not; let the benchmark save its details"
        )
    sent = SentLoad(
        count,
        prompts or [],
        outputs or [],
        starts,
        arrivals_per_second,
        limit(data, "max_concurrency", source),
    )
    requests, assumed = sent.requests()
    if failed := data.get("failed"):
        remarks.append(f"{failed} failed requests are left out")
    if unused := [key for key in _NOT_USED if data.get(key)]:
        remarks.append(f"not used: {', '.join(unused)}")
    return BenchmarkLoad(
        source=source,
        format=program,
        model=model if isinstance(model, str) else None,
        requests=requests,
        concurrency=sent.concurrency,
        ttft_seconds=number(data, "median_ttft_ms", source, "measure it (a streaming benchmark does)") / 1e3,
        tpot_seconds=number(data, "median_tpot_ms", source, "ask for more than one output token") / 1e3,
        output_tokens_per_second=number(data, "output_throughput", source),
        tried_ahead=isinstance(length := data.get(tried_key), int | float) and length > 1,
        remarks=(*remarks, *assumed),
    )


def _answered(
    prompts: list[float] | None,
    outputs: list[float] | None,
    starts: list[float] | None,
    count: int,
    source: str,
) -> tuple[list[float], list[float], list[float] | None]:
    """Lengths and times of the requests that were answered: those with output."""
    prompts, outputs = prompts or [], outputs or []
    if len(prompts) != len(outputs) or (starts is not None and len(starts) != len(outputs)):
        raise InputError(f"{source}: input_lens, output_lens and start_times are not equally long")
    kept = [n for n, tokens in enumerate(outputs) if tokens > 0]
    if len(kept) != count:
        raise InputError(f"{source}: completed = {count}, but {len(kept)} requests have output_lens above 0")
    return [prompts[n] for n in kept], [outputs[n] for n in kept], starts and [starts[n] for n in kept]
