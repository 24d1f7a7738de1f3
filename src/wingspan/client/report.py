"""What a load met: latencies, throughput, and the file that `vllm bench serve` writes.

Shapes: N requests that were answered.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wingspan.client.call import Endpoint, Timed
from wingspan.schedule.latencies import latencies
from wingspan.schedule.serving_result import Latencies, ServingLimits
from wingspan.specs.requests import Requests

Array = NDArray[np.float64]


def report(answers: Sequence[Timed], limits: ServingLimits) -> Latencies:
    """The figures of one load, by the function that the simulator's come from."""
    good = sorted((one for one in answers if one.error is None), key=lambda one: one.sent_seconds)
    begun = good[0].sent_seconds
    requests = Requests(
        np.array([one.sent_seconds - begun for one in good]),
        np.array([one.prompt_tokens for one in good]),
        np.array([max(1, one.output_tokens) for one in good]),
    )
    first_N = np.array([one.token_seconds[0] - begun for one in good])
    last_N = np.array([one.token_seconds[-1] - begun for one in good])
    return latencies(requests, first_N, last_N, limits)


def vllm_result(
    target: Endpoint,
    answers: Sequence[Timed],
    found: Latencies,
    *,
    rate: float | None,
    concurrency: int | None,
    date: str,
) -> dict[str, Any]:
    """The object that `vllm bench serve --save-result --save-detailed` writes, so that its readers read ours."""
    good = [one for one in answers if one.error is None]
    duration = max(one.token_seconds[-1] for one in good) - min(one.sent_seconds for one in answers)
    outputs, prompts = sum(one.output_tokens for one in good), sum(one.prompt_tokens for one in good)
    ttft_N = np.array([one.token_seconds[0] - one.sent_seconds for one in good])
    end_N = np.array([one.token_seconds[-1] - one.sent_seconds for one in good])
    several = [n for n, one in enumerate(good) if one.output_tokens > 1]
    tpot_N = np.array([(end_N[n] - ttft_N[n]) / (good[n].output_tokens - 1) for n in several])
    gaps = [np.diff(one.token_seconds).tolist() for one in answers]
    times = {
        "ttft": ttft_N,
        "tpot": tpot_N,
        "itl": np.array([gap for several_gaps in gaps for gap in several_gaps]),
        "e2el": end_N,
    }
    return {
        "date": date,
        "backend": "openai",
        "endpoint_type": "openai",
        "model_id": target.model,
        "tokenizer_id": target.model,
        "num_prompts": len(answers),
        "request_rate": "inf" if rate is None else rate,
        "burstiness": 1.0,
        "max_concurrency": concurrency,
        "duration": duration,
        "completed": len(good),
        "failed": len(answers) - len(good),
        "total_input_tokens": prompts,
        "total_output_tokens": outputs,
        "request_throughput": len(good) / duration,
        "request_goodput": found.goodput_requests_per_second,
        "output_throughput": outputs / duration,
        "total_token_throughput": (prompts + outputs) / duration,
        **{
            key: value
            for name, seconds_N in times.items()
            for key, value in _milliseconds(name, seconds_N).items()
        },
        "input_lens": [one.prompt_tokens for one in answers],
        "output_lens": [one.output_tokens for one in answers],
        "ttfts": [one.token_seconds[0] - one.sent_seconds if one.token_seconds else 0.0 for one in answers],
        "itls": gaps,
        "start_times": [one.sent_seconds for one in answers],
        "generated_texts": [one.text for one in answers],
        "errors": [one.error or "" for one in answers],
    }


def _milliseconds(name: str, seconds_N: Array) -> dict[str, float]:
    values = 1e3 * (seconds_N if len(seconds_N) else np.zeros(1))
    return {
        f"mean_{name}_ms": float(values.mean()),
        f"median_{name}_ms": float(np.median(values)),
        f"std_{name}_ms": float(values.std()),
        f"p99_{name}_ms": float(np.percentile(values, 99)),
    }
