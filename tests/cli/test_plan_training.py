"""`wingspan plan --phase train`."""

import json


def test_the_command_prints_it_and_refuses_what_it_has_not(wingspan) -> None:
    asked = ("plan", "mixtral-8x7b", "--phase", "train", "--gpus", "16")
    made = json.loads(wingspan(*asked, "--json").out)
    assert made["fits"]
    rates = [choice["tokens_per_second_per_gpu"] for choice in made["choices"]]
    assert rates == sorted(rates, reverse=True)
    assert all(choice["memory_bytes"] <= 80e9 for choice in made["choices"])
    shown = wingspan(*asked, "--total-sequences", "256", "--context", "2048").out
    assert "256 sequences of 2,048 tokens" in shown
    assert max(map(len, shown.splitlines())) <= 80
    refused = wingspan(*asked, "-b", "7")
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "--tokens-per-gpu 7" in refused.err
    assert "nothing fits" in wingspan(*asked[:-1], "8").out
