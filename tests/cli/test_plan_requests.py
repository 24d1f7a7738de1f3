"""`wingspan plan --input --output`: what it prints, writes and refuses; its commands exist and run."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from tests.cli.command import TINY, Command
from wingspan.interop.launch import LAUNCHERS, EngineLaunch, sglang

ASKED = ("plan", TINY, "--gpus", "8", "--input", "100", "--output", "20")


def test_json_says_the_best_and_its_price(wingspan: Command) -> None:
    done = wingspan(*ASKED, "--price", "2", "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    best = found["best"]
    assert best["price_per_million_tokens"] == pytest.approx(
        2 / 3600 / best["tokens_per_second_per_gpu"] * 1e6
    )
    rates = [one["tokens_per_second_per_gpu"] for one in found["considered"] if "decode_ranks" in one]
    assert best["tokens_per_second_per_gpu"] == max(rates)
    assert set(found["commands"]) == {"then", "SGLang", "vLLM", "TensorRT-LLM"}


def test_limits_bind(wingspan: Command) -> None:
    free = json.loads(wingspan(*ASKED, "--json").out)["best"]
    limit = 0.9 * free["tpot_seconds"]
    bound = json.loads(wingspan(*ASKED, "--tpot", str(limit), "--json").out)["best"]
    assert bound["tpot_seconds"] <= limit
    assert bound["tokens_per_second_per_gpu"] < free["tokens_per_second_per_gpu"]
    limit = free["ttft_seconds"] / 2
    soon = json.loads(wingspan(*ASKED, "--ttft", str(limit), "--json").out)["best"]
    assert soon is None or soon["ttft_seconds"] <= limit
    nothing = wingspan(*ASKED, "--tpot", "0.000001")
    assert "nothing keeps these limits" in nothing.out


def test_the_commands_that_it_prints_run(wingspan: Command, tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    done = wingspan(*ASKED, "--ttft", "1", "--out", str(out), "--html", str(tmp_path / "page.html"))
    assert done.code == 0, done.err
    text = (tmp_path / "page.html").read_text()
    assert "tokens/s per user" in text
    lines = done.out.replace("\\\n", " ").splitlines()
    commands = [shlex.split(line)[1:] for line in lines if line.startswith("wingspan ")]
    others = [words[0] for words in commands if words[0] != "simulate"]
    assert others == ["place", "run", "serve", "simulate-serving"]
    planned = [float(step) for step in re.findall(r"step\s+of\s+([\d.]+)\s+ms", done.out)]
    predicted = []
    for words in commands:
        if words[0] == "simulate":
            step = json.loads(wingspan(*words, "--json").out)["step_seconds"]
            predicted.append(round(step * 1e3, 1))
        if words[0] == "simulate-serving":
            served = wingspan(*words, "--num-requests", "40", "--json")
            assert served.code == 0, served.err
    assert predicted == planned[::-1] != []


@pytest.mark.parametrize(
    "more", [("--redundant", "4"), ("--placement", "balanced"), ("--experts-per-rank", "4")]
)
def test_slots_that_are_asked_for_are_in_its_files(
    wingspan: Command, tmp_path: Path, more: tuple[str, str]
) -> None:
    """With a load as routing: the printed commands have it, and `simulate` prints the step of the plan."""
    load, out = tmp_path / "load.json", tmp_path / "found.json"
    load.write_text(json.dumps([[100 + 50 * ((layer + e) % 5) for e in range(8)] for layer in range(7)]))
    done = wingspan(
        *ASKED, *more, "--routing", str(load), "--out", str(out), "--precision", "kv=fp8", "--json"
    )
    assert done.code == 0, done.err
    found = json.loads(done.out)
    then = " ".join(" ".join(found["commands"]["then"]).replace("\\", " ").split())
    assert f"wingspan place {load} " in then
    if f"wingspan simulate-serving {out} " in then:  # the file has it, and where its experts lie
        served = then[then.index("simulate-serving") :].split()
        report = wingspan(*served, "--num-requests", "40", "--json")
        assert report.code == 0, report.err
        assert "fp8 KV cache" in json.loads(report.out)["conditions"]["Precision"]
    else:
        assert f"--routing {load} " in then
        assert "--precision kv=fp8" in then
    best = found["best"]
    step = json.loads(wingspan("simulate", str(out), "--json").out)["step_seconds"]
    assert step == pytest.approx(best.get("decode_without_prompts_seconds", best["decode_step_seconds"]))


@pytest.mark.parametrize(
    ("cluster", "precision", "has", "lacks"),
    [
        ("h100-sxm", None, {}, ["--quantization", "# MODEL"]),
        (
            "h100-sxm",
            "fp8,kv=fp8",
            {
                "SGLang": ["--quantization fp8", "--kv-cache-dtype fp8_e4m3"],
                "vLLM": ["--quantization fp8", "--kv-cache-dtype fp8"],
                "TensorRT-LLM": ["# MODEL: fp8 weights", "dtype: fp8"],
            },
            [],
        ),
        (
            "b200",
            "nvfp4",
            {
                "SGLang": ["# MODEL: bf16 weights (nvfp4 dense and experts), as its config says"],
                "vLLM": ["# MODEL: bf16 weights (nvfp4 dense and experts)"],
            },
            ["--quantization"],
        ),
        ("h100-sxm", "nvfp4", {}, ["cutedsl", "NVFP4_DISPATCH"]),
    ],
)
def test_engines_are_told_of_weights_what_their_config_does_not_say(
    wingspan: Command, cluster: str, precision: str | None, has: dict[str, list[str]], lacks: list[str]
) -> None:
    given = () if precision is None else ("--precision", precision)
    done = wingspan(*ASKED, "--cluster", cluster, *given, "--json")
    found = {name: " ".join(lines) for name, lines in json.loads(done.out)["commands"].items()}
    del found["then"]
    for engine, words in has.items():
        assert [word for word in words if word not in found[engine]] == [], found[engine]
    assert [word for word in lacks if any(word in text for text in found.values())] == []


@pytest.mark.parametrize(("ranks", "told"), [(8, True), (1, False)])
def test_sglang_is_told_of_rows_in_nvfp4_where_rows_travel(ranks: int, told: bool) -> None:
    asked = EngineLaunch(
        phase="decode",
        ranks=ranks,
        ranks_per_node=ranks,
        redundant=0,
        experts=8,
        attention_ranks=1,
        sequences=8,
        step_tokens=8,
        two_batch=False,
        fp8_cache=False,
        nvfp4_experts=True,
        nvfp4_rows=True,
    )
    words = sglang(asked).words
    assert ("SGLANG_MOE_NVFP4_DISPATCH=1" in words) is told
    assert ("--moe-runner-backend flashinfer_cutedsl" in words) is told


@pytest.mark.parametrize("engine", LAUNCHERS)
@pytest.mark.parametrize("tried", [0, 2])
def test_engines_are_told_of_tokens_tried_ahead(engine: str, tried: int) -> None:
    asked = EngineLaunch(
        phase="decode", ranks=8, ranks_per_node=8, redundant=0, experts=256, attention_ranks=1, sequences=100,
        step_tokens=300, two_batch=False, fp8_cache=False, tried_ahead=tried,
    )  # fmt: skip
    command = LAUNCHERS[engine](asked)
    said = {
        "SGLang": "--speculative-num-steps 2 --speculative-eagle-topk 1 --speculative-num-draft-tokens 3",
        "vLLM": """--speculative-config '{"method": "mtp", "num_speculative_tokens": 2}'""",
        "TensorRT-LLM": "speculative_config:\n  decoding_type: MTP\n  num_nextn_predict_layers: 2",
    }[engine]
    told = " ".join(command.words) + command.file_text
    assert (said in told) == (tried > 0)
    assert ("speculative" in told) == (tried > 0)
    # Room for the rows of every token that is tried.
    assert ("RANK=300" in told) == (engine == "SGLang" and tried > 0)


def test_estimates_are_marked(wingspan: Command) -> None:
    considered = json.loads(wingspan(*ASKED, "--json").out)["considered"]
    kinds = {one["estimated"] for one in considered if "estimated" in one}
    assert kinds == {True, False}
    out = wingspan(*ASKED).out
    assert "~ estimated from few layers" in out
    assert [line for line in out.splitlines() if "the best" in line and "~" in line] == []


def test_where_nothing_keeps_the_limits_nothing_is_written(wingspan: Command, tmp_path: Path) -> None:
    out = tmp_path / "none.json"
    done = wingspan(*ASKED, "--tpot", "0.000001", "--out", str(out))
    assert f"nothing is written to {out}" in " ".join(done.out.split("\n"))
    assert not out.exists()


def test_only_a_checkpoint_can_be_served(wingspan: Command) -> None:
    """A preset has no weights: the file of its plan says no more than what `run --checkpoint` is given."""
    assert "wingspan serve best.json" in wingspan(*ASKED).out.splitlines()
    assert "wingspan serve" not in wingspan("plan", "mixtral-8x7b", *ASKED[2:]).out


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--phase", "prefill"), "--phase prefill: does nothing here"),
        (("-b", "8"), "--tokens-per-gpu 8: does nothing here"),
        (("--longest-step-ms", "8"), "does nothing here"),
        (("--redundant", "1", "--experts-per-rank", "2"), "say the same in two ways"),
        (("--redundant", "7"), "divide over none"),
        (("--experts-per-rank", "100"), "on none of the EP sizes"),
    ],
)
def test_what_does_not_go_together_is_refused(wingspan: Command, more: tuple[str, ...], says: str) -> None:
    done = wingspan(*ASKED, *more)
    assert done.code == 2
    assert says in done.err
    assert done.err.count("\n") == 1


def test_half_a_request_is_refused(wingspan: Command) -> None:
    done = wingspan("plan", TINY, "--gpus", "8", "--input", "100")
    assert (done.code, "a request has an output too" in done.err) == (2, True)
    done = wingspan("plan", TINY, "--gpus", "8", "--ttft", "1")
    assert (done.code, "it is a limit of requests" in done.err) == (2, True)
    done = wingspan("plan", TINY, "--gpus", "8", "--input", "100", "--output", "1")
    assert (done.code, "nothing is decoded" in done.err) == (2, True)


@pytest.mark.parametrize("model", ["deepseek-v3", "mixtral-8x7b", "gpt-oss-120b"])
@pytest.mark.parametrize("cluster", ["h200", "gb200-nvl72"])
def test_no_digit_is_cut_at_80_columns(
    wingspan: Command, model: str, cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for options in (
        ("--phase", "prefill"),
        ("--price", "2.5"),
        ("--input", "1000", "--output", "100", "--price", "2.5"),
    ):
        done = wingspan("plan", model, "--cluster", cluster, "--gpus", "32", *options)
        assert done.code == 0, done.err
        assert "…" not in done.out


def test_a_file_repeats_the_plan_for_requests_and_options_change_it(
    wingspan: Command, tmp_path: Path
) -> None:
    out = tmp_path / "found.json"
    first = wingspan(*ASKED, "--ttft", "1", "--redundant", "8", "--out", str(out), "--json")
    assert first.code == 0, first.err
    found = json.loads(first.out)
    found.pop("commands")
    for file in (out, *tmp_path.glob("found.prefill.json")):
        again = wingspan("plan", str(file), "--json")
        assert again.code == 0, again.err
        repeated = json.loads(again.out)
        repeated.pop("commands")
        assert repeated == found
    limit = 0.9 * found["best"]["tpot_seconds"]
    changed = json.loads(
        wingspan("plan", str(out), "--tpot", str(limit), "--output-tokens", "21", "--json").out
    )
    assert (changed["ttft_seconds"], changed["tpot_seconds"]) == (1, limit)
    assert (changed["prompt_tokens"], changed["output_tokens"]) == (100, 21)
    refused = wingspan("plan", str(out), "--tokens-per-gpu", "4")
    assert refused.code == 2
    assert "was planned for requests" in refused.err


def test_limits_of_requests_are_refused_of_a_file_that_has_none(wingspan: Command, tmp_path: Path) -> None:
    out = tmp_path / "steps.json"
    assert wingspan("plan", TINY, "--gpus", "8", "--out", str(out), "--json").code == 0
    refused = wingspan("plan", str(out), "--ttft", "1")
    assert refused.code == 2
    assert "--ttft" in refused.err
    assert "was not planned for any" in refused.err
