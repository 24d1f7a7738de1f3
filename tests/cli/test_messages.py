"""What is wrong is said by the option or key that holds it, and by what a file holds instead."""

from __future__ import annotations

import pytest

MODEL = "mixtral-8x7b"


@pytest.fixture
def deployment(wingspan, tmp_path) -> str:
    path = tmp_path / "d.json"
    assert wingspan("simulate", MODEL, "--ranks", "8", "--out", str(path)).code == 0
    return str(path)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("simulate", MODEL, "--phase", "x"), "--phase x: use prefill or decode"),
        (("sweep", MODEL, "--phase", "x"), "--phase x: use prefill or decode"),
        (("simulate", MODEL, "--dispatcher", "flt"), "--dispatcher flt: use one of flat"),
        (("sweep", MODEL, "--bandwidth", "0"), "--bandwidth 0: GB/s must be above 0"),
        (("sweep", MODEL, "--ranks", "0"), "--ranks 0: use 1 or more"),
        (
            ("sweep", MODEL, "--attention-ranks", "3", "--ranks", "8"),
            f"{MODEL}: attention_ranks 3 must divide",
        ),
        (("simulate-serving", MODEL, "--ttft-p99", "-1"), "'--ttft-p99'"),
        (("synthesize", "uniform", "--out", "x.json"), "let its name end in .parquet"),
        (("sweep", "DEPLOYMENT"), "holds a deployment, and a model's configuration is wanted"),
        (("inspect", "DEPLOYMENT"), "holds a deployment, and a model's configuration is wanted"),
        (("plan", MODEL, "--cluster", "DEPLOYMENT"), "holds a deployment, and a cluster is wanted"),
        (("routing", "DEPLOYMENT"), "holds a deployment, and a recorded load is wanted"),
    ],
)
def test_a_mistake_is_one_line_that_names_it(wingspan, deployment, arguments, says):
    ended = wingspan(*(deployment if word == "DEPLOYMENT" else word for word in arguments))
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert says in ended.err


def test_a_table_of_requests_is_no_load(wingspan, tmp_path):
    table = tmp_path / "requests.csv"
    table.write_text("arrival_seconds,prompt_tokens,output_tokens\n0,100,20\n")
    ended = wingspan("routing", str(table))
    assert (ended.code, ended.out) == (2, "")
    assert "arrival_seconds is none of an expert: a table of requests" in ended.err
