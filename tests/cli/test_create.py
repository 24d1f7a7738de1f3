import json

from tests.runtime.checkpoints import configurations


def test_a_created_preset_keeps_61_layers_and_runs_on_16_ranks(wingspan, tmp_path):
    folder = tmp_path / "small"
    assert wingspan("create", "seed-small", str(folder)).code == 0
    done = wingspan(
        "run", str(folder), "--ranks", "16", "--prompt", "def", "--max-new-tokens", "2", "--dtype", "float32",
        "--check", "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    result = json.loads(done.out)
    assert result["check"]["passed"]
    assert len(result["report"]["load_tokens"]) == 58


def test_another_architecture_is_created_from_its_configuration(wingspan, tmp_path):
    configurations()["gpt_oss"].save_pretrained(tmp_path)
    done = wingspan("create", str(tmp_path / "config.json"), str(tmp_path / "out"))
    assert done.code == 0, done.err
    assert "gpt_oss" in done.out


def test_a_folder_with_a_model_is_left_alone(wingspan, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    done = wingspan("create", "seed-small", str(tmp_path))
    assert done.code == 2
    assert "holds a model already" in done.err
    assert (tmp_path / "config.json").read_text() == "{}"


def test_a_model_larger_than_memory_is_refused_before_anything_is_written(wingspan, tmp_path):
    done = wingspan("create", "seed", str(tmp_path / "seed"))
    assert done.code == 2
    assert "do not fit" in done.err
    assert not (tmp_path / "seed").exists()
