"""Files of each benchmark's format are read as their documentation says; others are refused in one line."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.cli.command import REPOSITORY
from wingspan.errors import InputError
from wingspan.interop.benchmarks.files import read_benchmarks as read_any
from wingspan.interop.benchmarks.load import BenchmarkLoad


def read_benchmarks(path: Path) -> list[BenchmarkLoad]:
    loads = read_any(path, 10)
    assert all(isinstance(load, BenchmarkLoad) for load in loads)
    return [load for load in loads if isinstance(load, BenchmarkLoad)]


CASES = REPOSITORY / "tests" / "cases" / "benchmarks"


def test_vllm_without_details_has_requests_of_the_mean_length() -> None:
    (load,) = read_benchmarks(CASES / "vllm_c4.json")
    assert (load.format, load.model, load.concurrency) == ("vllm bench serve", "tiny", 4)
    assert len(load.requests) == 24
    assert set(load.requests.prompt_tokens_N) == {64}
    assert set(load.requests.output_tokens_N) == {32}
    assert (load.ttft_seconds, load.tpot_seconds) == (0.079, 0.0355)
    assert load.output_tokens_per_second == 111.3
    assert any("--save-detailed" in remark for remark in load.remarks)


def test_vllm_with_details_has_each_request_and_leaves_failed_ones_out() -> None:
    (load,) = read_benchmarks(CASES / "vllm_detailed.json")
    assert load.concurrency is None
    assert len(load.requests) == 5
    np.testing.assert_allclose(load.requests.arrival_seconds_N, [0, 0.31, 0.52, 0.75, 1.1], atol=1e-9)
    assert any("1 failed requests" in remark for remark in load.remarks)
    assert any("not used: itls, generated_texts, errors" in remark for remark in load.remarks)


def test_every_line_of_sglang_is_a_load() -> None:
    loads = read_benchmarks(CASES / "sglang.jsonl")
    assert [load.concurrency for load in loads] == [1, 8]
    assert [load.source.endswith(f"run {n}") for n, load in enumerate(loads, 1)] == [True, True]
    assert [load.tpot_seconds for load in loads] == [0.032, 0.039]
    assert not any(load.tried_ahead for load in loads)


@pytest.mark.parametrize(("name", "program"), [("genai_perf.json", "genai-perf"), ("aiperf.json", "aiperf")])
def test_nvidias_profiles_say_the_load_in_their_configuration(name: str, program: str) -> None:
    (load,) = read_benchmarks(CASES / name)
    assert (load.format, load.concurrency, len(load.requests)) == (program, 4, 24)
    assert (load.ttft_seconds, load.tpot_seconds) == pytest.approx((0.040, 0.0357))
    assert load.output_tokens_per_second == 110.0


def test_a_load_reads_the_same_in_vllms_and_in_sglangs_format(tmp_path: Path) -> None:
    theirs = json.loads((CASES / "vllm_detailed.json").read_text())
    own = {"num_prompts", "start_times", "model_id", "tokenizer_id", "endpoint_type", "label", "date"}
    other = {key: value for key, value in theirs.items() if key not in own} | {
        "backend": "sglang", "dataset_name": "random", "max_concurrency": 2, "request_rate": math.inf,
    }  # fmt: skip
    (tmp_path / "v.json").write_text(json.dumps(theirs | {"max_concurrency": 2, "request_rate": "inf"}))
    (tmp_path / "s.jsonl").write_text(json.dumps(other) + "\n")
    (vllm,), (sglang,) = (read_benchmarks(tmp_path / name) for name in ("v.json", "s.jsonl"))
    assert (vllm.format, sglang.format) == ("vllm bench serve", "sglang.bench_serving")
    assert vllm.concurrency == sglang.concurrency == 2
    for field in ("ttft_seconds", "tpot_seconds", "output_tokens_per_second"):
        assert getattr(vllm, field) == getattr(sglang, field)
    for field in ("arrival_seconds_N", "prompt_tokens_N", "output_tokens_N"):
        np.testing.assert_array_equal(getattr(vllm.requests, field), getattr(sglang.requests, field))


def changed(path: Path, name: str, **keys: Any) -> Path:
    data = json.loads((CASES / name).read_text())
    for key, value in keys.items():
        data.pop(key) if value is None else data.update({key: value})
    path.write_text(json.dumps(data))
    return path


@pytest.mark.parametrize(
    ("keys", "rate", "concurrency"),
    [
        ({"request_rate": 4.0}, 4.0, 4),
        ({"max_concurrency": None}, math.inf, None),
        ({"request_rate": 4.0, "max_concurrency": None}, 4.0, None),
    ],
)
def test_a_load_is_sent_as_the_file_says(
    tmp_path: Path, keys: dict[str, Any], rate: float, concurrency: int | None
) -> None:
    (load,) = read_benchmarks(changed(tmp_path / "a.json", "vllm_c4.json", **keys))
    assert load.concurrency == concurrency
    if math.isinf(rate):
        assert not load.requests.arrival_seconds_N.any()
    else:
        assert load.requests.rate_per_second == pytest.approx(rate, rel=0.5)
        assert "arrivals drawn (Poisson)" in load.remarks


def test_units_of_a_profile_are_its_own(tmp_path: Path) -> None:
    block = {"unit": "us", "avg": 36000.0, "p50": 35700.0}
    path = changed(tmp_path / "a.json", "aiperf.json", inter_token_latency=block)
    assert read_benchmarks(path)[0].tpot_seconds == pytest.approx(0.0357)


def test_a_compressed_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.json.gz"
    path.write_bytes(gzip.compress((CASES / "vllm_c4.json").read_bytes()))
    assert read_benchmarks(path)[0].concurrency == 4


@pytest.mark.parametrize("at", [0, 20, -4])
def test_a_damaged_compressed_file_is_named(tmp_path: Path, at: int) -> None:
    """In its head, in what is compressed, and in its sum."""
    content = bytearray(gzip.compress((CASES / "vllm_c4.json").read_bytes()))
    content[at] ^= 0xFF
    path = tmp_path / "a.json.gz"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.json\.gz"):
        read_benchmarks(path)


@pytest.mark.parametrize(
    ("name", "keys", "complaint"),
    [
        ("vllm_c4.json", {"median_tpot_ms": None}, "key median_tpot_ms is missing; ask for more than one"),
        ("vllm_c4.json", {"median_tpot_ms": 0.0}, "median_tpot_ms = 0.0: a number above 0"),
        ("vllm_c4.json", {"median_ttft_ms": "fast"}, "median_ttft_ms = 'fast'"),
        ("vllm_c4.json", {"completed": 0}, "no request was answered"),
        ("vllm_c4.json", {"max_concurrency": 2.5}, "max_concurrency = 2.5: a whole number"),
        ("vllm_c4.json", {"ramp_up_strategy": "linear"}, "take a steady load"),
        ("vllm_c4.json", {"burstiness": 0.5, "request_rate": 4.0}, "burstiness = 0.5"),
        ("vllm_detailed.json", {"completed": 6}, "completed = 6, but 5 requests"),
        ("vllm_detailed.json", {"start_times": [1.0]}, "not equally long"),
        ("vllm_detailed.json", {"input_lens": ["a"] * 6}, "a list of numbers is wanted"),
        (
            "genai_perf.json",
            {"inter_token_latency": None},
            "metric inter_token_latency is missing; let it stream",
        ),
        ("genai_perf.json", {"input_config": None}, "names no concurrency and no request_rate"),
        ("aiperf.json", {"time_to_first_token": {"unit": "weeks", "p50": 1}}, "unit = 'weeks'"),
        (
            "aiperf.json",
            {"input_config": {"a": {"concurrency": 2}, "b": {"concurrency": 3}}},
            "2, 3; take one",
        ),
    ],
)
def test_what_is_missing_or_wrong_is_named(
    tmp_path: Path, name: str, keys: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(InputError, match=complaint) as raised:
        read_benchmarks(changed(tmp_path / "a.json", name, **keys))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "not JSON"),
        ("[]", "not a benchmark's result"),
        ('{"a": 1}\n{"a"', "not JSON in line 2"),
        ('{"model_type": "qwen3"}', "holds a model's configuration"),
        ("hello", "not JSON in line 1"),
    ],
)
def test_another_file_is_refused(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(InputError, match=complaint):
        read_benchmarks(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_benchmarks(tmp_path / "none.json")


def test_what_vllm_itself_wrote_is_read() -> None:
    """By `vllm.benchmarks.serve` of vLLM's build for CPUs, November 2026."""
    (load,) = read_benchmarks(CASES / "vllm_real.json")
    assert (load.model, load.concurrency, len(load.requests)) == ("small", 4, 16)
    assert load.tpot_seconds == pytest.approx(0.0747, abs=1e-4)
    assert load.requests.prompt_tokens_N.sum() == pytest.approx(1041, abs=8)
    assert any("not used: latencies, queue_times" in remark for remark in load.remarks)
