"""A checkpoint's fingerprint tells other weights, configurations and tokenizers, reads little, and is cheap."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.cli.command import REPOSITORY
from wingspan.runtime.model.fingerprint import fingerprint

TINY = REPOSITORY / "models/tiny"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copytree(TINY, tmp_path / "copy")
    return tmp_path / "copy"


def test_a_copy_is_the_same_and_other_files_do_not_count(copy):
    (copy / "README.md").write_text("other words")
    assert fingerprint(copy) == fingerprint(TINY)


def test_another_configuration_is_another_checkpoint(copy):
    file = copy / "config.json"
    file.write_text(file.read_text().replace("0", "1", 1))
    names = [name for name, line in fingerprint(copy).items() if fingerprint(TINY)[name] != line]
    assert names == ["config.json of the checkpoint"]


def test_weights_of_the_same_shapes_are_told_apart(tmp_path):
    for name, seed in (("one", 1), ("two", 2)):
        torch.manual_seed(seed)
        (tmp_path / name).mkdir()
        save_file({"weight": torch.randn(1000, 1000)}, tmp_path / name / "model.safetensors")
    assert fingerprint(tmp_path / "one") != fingerprint(tmp_path / "two")


def test_little_is_read_of_large_files(tmp_path):
    """100 shards of 1 GB each, most of it holes."""
    for shard in range(100):
        with (tmp_path / f"model-{shard:03}.safetensors").open("wb") as file:
            file.write((1000).to_bytes(8, "little"))
            os.truncate(file.fileno(), 10**9)
    start = time.process_time()
    assert len(fingerprint(tmp_path)) == 100
    assert time.process_time() - start < 0.5
