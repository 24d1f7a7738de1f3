"""`wingspan presets` names what the other commands take, and Tab offers it."""

import json
import sys
from pathlib import Path

import pytest

from tests.cli.command import in_a_shell
from wingspan.deployment import load_deployment
from wingspan.specs.cluster import load_cluster
from wingspan.specs.models import load_model
from wingspan.specs.routing_text import ROUTING_TEXTS, parse_routing


def test_every_name_that_is_listed_is_taken(wingspan):
    found = json.loads(wingspan("presets", "--json").out)
    models, deployments, clusters, routing, engines = (list(groups.values()) for groups in found.values())
    assert all(load_model(name) for name in models[0])
    assert all(load_deployment(Path(name)) for name in deployments[0])
    for change in clusters[1]:
        for name in clusters[0]:
            assert load_cluster(name + change.replace("KEY=VALUE", "nodes=2")).gpu
    for text in routing[0]:
        if not text.startswith("FILE"):
            parse_routing(text.replace("EXPONENT", "1").replace("SIGMA", "0.5").replace("GROUPS", "0.3"))
    assert {"sglang", "vllm", "tensorrt-llm"} <= set(engines[0])


def test_one_kind_alone_in_80_columns(wingspan, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    out = wingspan("presets", "routing").out
    assert all(text in out for text in ROUTING_TEXTS)
    assert "deepseek" not in out
    whole = wingspan("presets").out
    assert "…" not in whole
    assert max(map(len, whole.splitlines())) <= 80
    wrong = wingspan("presets", "clutsers")
    assert wrong.code == 2
    assert "use one of models, deployments, clusters" in wrong.err


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("plan deepseek-v4", ["deepseek-v4-flash", "deepseek-v4-pro"]),
        ("plan deepseek-v3 --cluster h20", ["h20", "h200"]),
        ("plan deepseek-v3 --cluster h200+p", ["h200+pcie4", "h200+pcie5", "h200+pplx-kernels"]),
        ("inspect mix", ["mixtral-8x7b"]),
        ("simulate vllm-h200", ["vllm-h200-ep16-prefill", "vllm-h200-ep32-decode"]),
        ("atlas cloudmatrix-ep320", ["cloudmatrix-ep320-decode"]),
    ],
)
def test_tab_offers_presets(words: str, offered: list[str]):
    done = in_a_shell(
        [sys.executable, "-c", "from wingspan.cli.main import main; main()"],
        _WINGSPAN_COMPLETE="complete_bash",
        COMP_WORDS=f"wingspan {words}",
        COMP_CWORD=str(len(words.split())),
    )
    assert done.stdout.split() == offered


def test_models_says_of_each_type_what_works(wingspan):
    found = json.loads(wingspan("models", "--json").out)
    assert found["gpt_oss"]["planned"]
    assert found["gpt_oss"]["runs"]
    figures = found["gpt_oss"]["presets"]["gpt-oss-120b"]
    assert figures["parameters"] == 116_829_156_672
    assert (figures["experts"], figures["experts_per_token"]) == (128, 4)
    assert found["kimi_k3"]["presets"].keys() == {"kimi-k3"}
    assert sum(len(said["presets"]) for said in found.values()) >= 25
    assert found["qwen3_vl_moe"]["checked"] == ["float32", "bfloat16"]
    assert not found["diffusion_gemma"]["runs"]
    assert all(("why_not" in said) != said["runs"] for said in found.values())
    assert len(found) >= 75
    shown = wingspan("models").out
    assert all(f"{kind} " in shown for kind in found)
    assert f"{len(found)} types: {sum(said['planned'] for said in found.values())} are planned" in shown
