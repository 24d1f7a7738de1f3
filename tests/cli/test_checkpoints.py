"""What `run` and `inspect` make of checkpoints as people have them: end tokens, tokenizers, formats, wrong values."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GenerationConfig

from tests.cli.command import TINY, Command
from tests.runtime.checkpoints import configurations, write

LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 42\n"
PROMPT = [7, 8, 9]


def _run(wingspan: Command, folder: Path, *options: str):
    return wingspan(
        "run", str(folder), "--ranks", "2", "--experts-per-rank", "3", "--dtype", "float32", "--max-new-tokens", "8",
        *options,
    )  # fmt: skip


def _ids(wingspan: Command, folder: Path) -> tuple[list[int], str]:
    done = _run(wingspan, folder, "--prompt-ids", ",".join(map(str, PROMPT)), "--json")
    assert done.code == 0, done.err
    return json.loads(done.out)["outputs"][0]["token_ids"], done.err


def _by_transformers(folder: Path) -> list[int]:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    made = model.generate(torch.tensor([PROMPT]), max_new_tokens=8, do_sample=False)
    return made[0, len(PROMPT) :].tolist()


@pytest.fixture(scope="module")
def olmoe(tmp_path_factory) -> Path:
    """Its generation ends by no token."""
    folder = write(configurations()["olmoe"], tmp_path_factory.mktemp("olmoe"))
    (folder / "generation_config.json").unlink()
    return folder


def _copy(source: Path, folder: Path, **config: object) -> Path:
    folder.mkdir(exist_ok=True)
    for file in source.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    said = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(said | config))
    return folder


@pytest.mark.parametrize(
    ("in_config", "in_generation_config", "tokens"),
    [
        (None, None, 8),
        (2, None, 3),
        ([99, 2], None, 3),
        (None, [98, 1], 2),
        (None, 2, 3),
        (1, [2, 99], 3),
        (1, "absent", 8),
    ],
)
def test_generation_ends_at_the_tokens_at_which_transformers_ends(
    wingspan, olmoe, tmp_path, in_config, in_generation_config, tokens
):
    """Numbers below 8 stand for the token at that place of the text without an end."""
    free = _by_transformers(olmoe)

    def place(said: object) -> object:
        return (
            [place(s) for s in said] if isinstance(said, list) else free[said] if said in range(8) else said
        )

    folder = _copy(olmoe, tmp_path, eos_token_id=place(in_config))
    if in_generation_config is not None:
        said = {} if in_generation_config == "absent" else {"eos_token_id": place(in_generation_config)}
        (folder / "generation_config.json").write_text(json.dumps(said))
    got, _ = _ids(wingspan, folder)
    assert got == _by_transformers(folder)
    assert len(got) == tokens


def test_settings_that_a_run_does_not_follow_are_said_where_they_change_the_text(wingspan, olmoe, tmp_path):
    folder = _copy(olmoe, tmp_path)
    GenerationConfig(do_sample=True, temperature=0.6, top_p=0.9, num_beams=1).save_pretrained(folder)
    assert _ids(wingspan, folder)[1] == ""
    GenerationConfig(repetition_penalty=1.05, suppress_tokens=[3]).save_pretrained(folder)
    said = _ids(wingspan, folder)[1]
    assert said.count("\n") == 1
    assert "repetition_penalty = 1.05, suppress_tokens = [3]" in said


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"tokenizer.json": LFS}, ["tokenizer.json", "Git LFS pointer"]),
        ({"tokenizer.model": LFS, "tokenizer_config.json": "{}"}, ["tokenizer.model", "Git LFS pointer"]),
        ({"tokenizer.json": "{"}, ["its tokenizer"]),
        ({"tokenizer.json": "{}"}, ["its tokenizer"]),
        ({"tokenizer.json": "{}", "tokenizer_config.json": "["}, ["tokenizer_config.json", "not JSON"]),
        ({"tokenizer_config.json": '{"tokenizer_class": "Nobody"}'}, ["tokenizer_class 'Nobody'"]),
        ({"tokenizer_config.json": '{"tokenizer_class": ["a"]}'}, ["tokenizer_class ['a']"]),
        ({"tokenizer_config.json": '{"tokenizer_class": "AutoModel"}'}, ["tokenizer_class 'AutoModel'"]),
    ],
)
def test_a_tokenizer_that_cannot_be_loaded_is_one_line_and_only_where_it_is_needed(
    wingspan, olmoe, tmp_path, files, words
):
    folder = _copy(olmoe, tmp_path)
    for name, text in files.items():
        (folder / name).write_text(text)
    refused = _run(wingspan, folder, "--prompt", "a")
    ids, said = _ids(wingspan, folder)
    assert (refused.code, refused.out, refused.err.count("\n")) == (2, "", 1)
    assert said.count("\n") == 1
    for word in words:
        assert word in refused.err
        assert word in said
    assert "--prompt-ids" in refused.err
    assert len(ids) == 8


def test_quantised_weights_are_described_and_not_run(wingspan, olmoe, tmp_path):
    folder = _copy(
        olmoe, tmp_path, quantization_config={"quant_method": "fp8", "weight_block_size": [128, 128]}
    )
    refused = _run(wingspan, folder, "--prompt-ids", "1")
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "quantised (FP8, blocks of 128 x 128)" in refused.err
    weights = json.loads(wingspan("inspect", str(folder), "--runtime", "--json").out)["weights"]
    assert weights["format"] == "FP8, blocks of 128 x 128"
    assert weights["bytes"] == (folder / "model.safetensors").stat().st_size
    assert "quantised" in weights["problem"]
    assert "cannot run" in wingspan("inspect", str(folder), "--runtime").out


def test_a_preset_made_from_a_quantised_configuration_runs(wingspan, olmoe, tmp_path):
    folder = _copy(olmoe, tmp_path / "fp8", quantization_config={"quant_method": "fp8"})
    assert wingspan("create", str(folder), str(tmp_path / "made")).code == 0
    assert _run(wingspan, tmp_path / "made", "--prompt-ids", "1").code == 0


def test_inspect_describes_files_that_cannot_run(wingspan, olmoe, tmp_path):
    folder = _copy(olmoe, tmp_path)
    whole = json.loads(wingspan("inspect", str(folder), "--runtime", "--json").out)["weights"]
    assert (whole["format"], whole["files"], whole["unused"], whole["problem"]) == ("F32", 1, {}, None)
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, folder / "model.safetensors")
    assert (
        "model.norm.weight"
        in json.loads(wingspan("inspect", str(folder), "--runtime", "--json").out)["weights"]["problem"]
    )
    (folder / "model.safetensors").unlink()
    assert "no weights" in " ".join(wingspan("inspect", str(folder), "--runtime").out.split())


def test_a_configuration_that_only_fails_in_the_model_is_one_line(wingspan, tmp_path):
    folder = write(configurations()["deepseek_v3"], tmp_path)
    said = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(said | {"num_key_value_heads": 2}))
    refused = _run(wingspan, folder, "--prompt-ids", "1,2")
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert f"{folder}/config.json: transformers cannot run the model with these values" in refused.err


def test_a_run_says_nothing_on_standard_error(wingspan):
    done = wingspan("run", TINY, "--experts-per-rank", "8", "--prompt", "a", "--max-new-tokens", "2")
    assert (done.code, done.err) == (0, "")
