import json
import shutil

import pytest
from benchmarks.architectures import tiny_configuration

from tests.cli.command import TINY
from tests.cli.without_torch import run_without_torch
from tests.runtime.checkpoints import configurations


def test_the_seeds_expert_is_58_72_mb_and_88_08_gated(wingspan):
    assert "58.72 MB" in wingspan("inspect", "seed").out
    assert "88.08 MB" in wingspan("inspect", "seed", "--gated").out


def test_counts_of_the_shipped_model_add_up(wingspan):
    summary = json.loads(wingspan("inspect", TINY, "--json").out)
    assert (summary["layers"], summary["moe_layers"]) == (10, 7)
    assert (summary["experts_per_layer"], summary["experts_per_token"]) == (8, 2)
    assert summary["expert_parameters"] == 2 * 160 * 160
    assert summary["total_parameters"] == summary["shared_parameters"] + 7 * 8 * 2 * 160 * 160
    assert summary["total_bytes"] == 2 * summary["total_parameters"]


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        ("gpt_oss", "gated (three matrices), gate and up fused, interleaved, transposed, with biases"),
        ("deepseek_v3", "gated (three matrices), gate and up fused"),
    ],
)
def test_a_bare_configuration_is_enough(wingspan, tmp_path, name, layout):
    configurations()[name].save_pretrained(tmp_path)
    summary = json.loads(wingspan("inspect", str(tmp_path / "config.json"), "--runtime", "--json").out)
    assert summary["expert_layout"] == layout
    assert summary["model_type"] == name


@pytest.mark.parametrize(
    ("name", "words"), [("mixtral", "batched together"), ("minimax", "one length per forward")]
)
def test_it_says_whether_prompts_of_different_lengths_go_together(wingspan, tmp_path, name, words):
    tiny_configuration(name).save_pretrained(tmp_path)
    assert f"of different lengths: {words}" in wingspan("inspect", str(tmp_path), "--runtime").out
    neutral = json.loads(wingspan("inspect", str(tmp_path), "--runtime", "--json").out)["padding_is_neutral"]
    assert neutral is (name == "mixtral")


def test_gated_is_refused_where_it_means_nothing(wingspan, tmp_path):
    configurations()["olmoe"].save_pretrained(tmp_path)
    done = wingspan("inspect", str(tmp_path), "--gated")
    assert done.code == 2
    assert "'olmoe' has no gated_experts" in done.err


def test_a_broken_configuration_is_named(wingspan, tmp_path):
    (tmp_path / "config.json").write_text("{")
    done = wingspan("inspect", str(tmp_path))
    assert done.code == 2
    assert "config.json" in done.err
    assert len(done.err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    "model", [TINY, "deepseek-v3", "gpt-oss-120b", "qwen3-235b-a22b", "mixtral-8x7b", "seed"]
)
def test_what_needs_no_torch_is_what_transformers_says(wingspan, model):
    light = json.loads(wingspan("inspect", model, "--json").out)
    asked = json.loads(wingspan("inspect", model, "--runtime", "--json").out)
    files, asked_files = light.pop("weights"), asked.pop("weights")
    assert (files is None) == (asked_files is None)
    if files is not None:
        assert files == {key: asked_files[key] for key in files}
    del light["expert_matrices"]
    published = {key: light.pop(key) for key in ("published", "published_bytes") if key in light}
    assert (light.pop("mtp_layers", 0), light.pop("mtp_parameters", 0) > 0) == (model == "deepseek-v3",) * 2
    assert bool(published) == (model in ("deepseek-v3", "gpt-oss-120b"))
    assert light == {key: asked[key] for key in light}


@pytest.mark.parametrize(
    ("model", "words"), [("gpt-oss-120b", "65.2 GB in files"), ("deepseek-v3", "673 GB in files")]
)
def test_what_files_of_quantised_weights_hold(wingspan, model, words):
    """60.8 GiB (arXiv:2508.10925, table 1); 671 B parameters in FP8, of which embedding and head are BF16."""
    assert words in " ".join(wingspan("inspect", model).out.split())


def test_sizes_are_counted_where_that_is_asked(wingspan):
    out = " ".join(wingspan("inspect", TINY, "--from-weights").out.split())
    assert "counted from the tensors of its checkpoint" in out
    assert "4,252,000 parameters" in out


def test_sizes_and_files_need_no_torch():
    done = run_without_torch("inspect", TINY)
    assert done.returncode == 0, done.stderr
    assert "BF16; 1 file, 89 tensors" in done.stdout
    refused = run_without_torch("inspect", TINY, "--runtime")
    assert refused.returncode == 2
    assert "pip install" in refused.stderr


def test_a_damaged_weight_file_is_named(wingspan, tmp_path):
    shutil.copy(f"{TINY}/config.json", tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 20)
    done = wingspan("inspect", str(tmp_path))
    assert done.code == 2
    assert "model.safetensors: not a safetensors file" in done.err
