"""Sizes counted from tensors are those of the family, for every type whose tensors tell them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.specs.test_families import _registry
from wingspan.errors import InputError
from wingspan.specs.families import model_from_config
from wingspan.specs.from_weights import counted_model
from wingspan.specs.model import ModelSpec
from wingspan.specs.models import load_model
from wingspan.specs.precision import Precision
from wingspan.specs.tensors import Tensor

NOT_READ = {
    "dbrx": "its experts lie one below the other in one matrix",
    "doge": "its experts are rows of tables",
    "jetmoe": "its attention has experts too",
    "longcat_flash": "its experts' tensors have rows of experts that compute nothing",
    "zaya": "its layers have unlike routers",
}
"""Types that are refused by a line, and why."""
GUESSED = {"deepseek_v4", "inkling2", "inkling2_text", "inkling_mm_model", "inkling_text", "minimax_m3_vl",
           "minimax_m3_vl_text", "qwen4_exp", "qwen4_exp_text"}  # fmt: skip
"""Types of which something is guessed that moves totals or caches."""
OTHERWISE = {
    "afmoe": "a bias of its router is trained, which is a buffer elsewhere",
    "laguna": "a bias of its router is trained, which is a buffer elsewhere",
    "gemma4": "tables that tokens look up are counted as used",
    "gemma4_text": "tables that tokens look up are counted as used",
}
"""Types whose totals differ by something small that no tensor's name or shape tells."""


def _counted(kind: str) -> tuple[ModelSpec, ModelSpec] | None:
    """The family's description and the counted one; None where transformers builds no such model for text alone."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    from benchmarks.architectures import tiny_configuration

    text = tiny_configuration(kind).get_text_config()
    config = json.loads(json.dumps({**text.to_dict(), "model_type": text.model_type}, default=str))
    try:
        with torch.device("meta"):
            model = transformers.AutoModelForCausalLM.from_config(text)
    except ValueError:
        return None
    tensors = {name: Tensor(tuple(p.shape), "BF16") for name, p in model.named_parameters()}
    return model_from_config(config, kind), counted_model(config, tensors, kind)


def _figures(of: ModelSpec) -> tuple[object, ...]:
    return of.parameters.total, of.parameters.active, of.kv_values_per_token, of.layers, of.moe_layers


def test_what_is_counted_is_what_the_family_says() -> None:
    wrong, refused, right = {}, set(), 0
    for kind in _registry():
        try:
            both = _counted(kind)
        except InputError:
            refused.add(kind)
            continue
        if both is None or kind in GUESSED | OTHERWISE.keys():
            continue
        family, counted = map(_figures, both)
        right += family == counted
        if family != counted:
            wrong[kind] = (family, counted, both[1].remarks)
    assert wrong == {}
    assert refused == set(NOT_READ)
    assert right >= 45


@pytest.mark.parametrize("kind", sorted(GUESSED))
def test_what_is_guessed_is_said(kind: str) -> None:
    both = _counted(kind)
    assert both is not None
    assert any(remark.startswith("guessed: ") for remark in both[1].remarks)
    assert both[1].experts.count == both[0].experts.count


@pytest.mark.parametrize("kind", sorted(OTHERWISE))
def test_what_differs_is_small(kind: str) -> None:
    both = _counted(kind)
    assert both is not None
    for family, counted in zip(_figures(both[0])[:2], _figures(both[1])[:2], strict=True):
        assert counted == pytest.approx(family, rel=0.06)


CONFIG: dict[str, Any] = {
    "model_type": "starfish",
    "num_experts_per_tok": 2,
    "num_attention_heads": 4,
    "hidden_size": 64,
}
_SIZE = {"BF16": 2, "F8_E4M3": 1, "F32": 4, "I32": 4, "U8": 1}


def _tensors(expert: Any) -> dict[str, Tensor]:
    """Two layers: attention of 4 heads with 2 of keys, 4 experts of 64 x 32; `expert` gives one matrix's tensors."""
    found = {
        "model.embed_tokens.weight": Tensor((320, 64), "BF16"),
        "model.norm.weight": Tensor((64,), "BF16"),
    }
    for layer in range(2):
        at = f"model.layers.{layer}"
        found |= {f"{at}.self_attn.{name}_proj.weight": Tensor((rows, 64), "BF16")
                  for name, rows in (("q", 64), ("k", 32), ("v", 32), ("o", 64))}  # fmt: skip
        found |= {f"{at}.mlp.gate.weight": Tensor((4, 64), "BF16")}
        found |= {
            f"{at}.{name}_layernorm.weight": Tensor((64,), "BF16") for name in ("input", "post_attention")
        }
        for number in range(4):
            for name, shape in (("gate", (32, 64)), ("up", (32, 64)), ("down", (64, 32))):
                found |= expert(f"{at}.mlp.experts.{number}.{name}_proj", *shape)
    return found


def _plain(name: str, rows: int, columns: int) -> dict[str, Tensor]:
    return {f"{name}.weight": Tensor((rows, columns), "BF16")}


def _fp8(name: str, rows: int, columns: int) -> dict[str, Tensor]:
    scales = {f"{name}.weight_scale_inv": Tensor((1, 1), "F32")}
    return {f"{name}.weight": Tensor((rows, columns), "F8_E4M3"), **scales}


def _int4(name: str, rows: int, columns: int) -> dict[str, Tensor]:
    return {
        f"{name}.weight_packed": Tensor((rows, columns // 8), "I32"),
        f"{name}.weight_scale": Tensor((rows, columns // 32), "BF16"),
        f"{name}.weight_shape": Tensor((2,), "I64"),
    }


def _nvfp4(name: str, rows: int, columns: int) -> dict[str, Tensor]:
    return {
        f"{name}.weight": Tensor((rows, columns // 2), "U8"),
        f"{name}.weight_scale": Tensor((rows, columns // 16), "F8_E4M3"),
        f"{name}.weight_scale_2": Tensor((), "F32"),
        f"{name}.input_scale": Tensor((), "F32"),
    }


def _gptq(name: str, rows: int, columns: int) -> dict[str, Tensor]:
    return {
        f"{name}.qweight": Tensor((columns // 8, rows), "I32"),
        f"{name}.qzeros": Tensor((1, rows // 8), "I32"),
        f"{name}.scales": Tensor((1, rows), "F16"),
        f"{name}.g_idx": Tensor((columns,), "I32"),
    }


def _awq(name: str, rows: int, columns: int) -> dict[str, Tensor]:
    return {
        f"{name}.qweight": Tensor((columns, rows // 8), "I32"),
        f"{name}.qzeros": Tensor((1, rows // 8), "I32"),
        f"{name}.scales": Tensor((1, rows), "F16"),
    }


@pytest.mark.parametrize(
    ("expert", "kind"),
    [
        (_plain, Precision.BF16),
        (_fp8, Precision.FP8),
        (_int4, Precision.INT4_G32),
        (_nvfp4, Precision.NVFP4),
        (_gptq, None),
        (_awq, None),
    ],
)
def test_packed_tensors_count_as_what_they_hold(expert: Any, kind: Precision | None) -> None:
    plain, packed = (counted_model(CONFIG, _tensors(of), "a folder") for of in (_plain, expert))
    assert packed.parameters == plain.parameters
    assert plain.parameters.expert == 3 * 64 * 32
    assert plain.kv_values_per_token == 2 * 2 * (16 + 16)
    stored = packed.precision.experts.weights
    assert stored is kind if kind else stored.bytes == 0.5
    assert packed.precision.attention.weights is Precision.BF16


def _written(folder: Path, config: dict[str, Any], tensors: dict[str, Tensor]) -> str:
    """A folder with these headers; the data is zeros."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    said, end = {}, 0
    for name, tensor in tensors.items():
        size = int(np.prod(tensor.shape)) * _SIZE.get(tensor.dtype, 8)
        said[name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [end, end + size]}
        end += size
    header = json.dumps(said).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + end)
    return str(folder)


def test_a_type_that_nobody_listed_is_counted_where_its_weights_are(tmp_path: Path) -> None:
    folder = _written(tmp_path / "new", CONFIG, _tensors(_plain))
    of = load_model(folder)
    assert (of.name, of.layers, of.experts.count) == ("new", 2, 4)
    assert "counted from the tensors" in of.remarks[0]
    with pytest.raises(InputError, match="starfish"):
        load_model(f"{folder}/config.json")


def test_wrappers_and_parts_for_images(tmp_path: Path) -> None:
    text = {name.replace("model.", "model.language_model.", 1): t for name, t in _tensors(_plain).items()}
    seen = {f"model.visual.blocks.{n}.mlp.fc1.weight": Tensor((64, 64), "BF16") for n in range(3)}
    config = {"model_type": "starfish_vl", "text_config": {**CONFIG, "model_type": "starfish_vl_text"}}
    of = load_model(_written(tmp_path / "seeing", config, {**text, **seen}))
    assert of.parameters == counted_model(CONFIG, _tensors(_plain), "plain").parameters
    assert any("no text" in remark for remark in of.remarks)


@pytest.mark.parametrize(
    ("left_out", "words"),
    [
        ("model.layers.0.", "layer 0 has no tensors"),
        (".experts.", "no tensor is an expert's"),
        ("embed_tokens", "no tensor is named as an embedding"),
    ],
)
def test_what_is_missing_is_named(left_out: str, words: str) -> None:
    tensors = {name: tensor for name, tensor in _tensors(_plain).items() if left_out not in name}
    with pytest.raises(InputError, match=words):
        counted_model(CONFIG, tensors, "a folder")


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_odd_shapes_are_counted_or_refused(data: st.DataObject) -> None:
    tensors = _tensors(data.draw(st.sampled_from([_plain, _fp8, _int4, _nvfp4, _gptq, _awq])))
    for name in data.draw(st.lists(st.sampled_from(sorted(tensors)), max_size=6)):
        shape = tuple(data.draw(st.lists(st.sampled_from([0, 1, 2, 32, 64, 96]), max_size=4)))
        tensors[name] = Tensor(shape, data.draw(st.sampled_from(["BF16", "U8", "I32", "F8_E4M3"])))
    try:
        of = counted_model(CONFIG, tensors, "a folder")
    except InputError:
        return
    assert of.parameters.total > 0


def test_without_experts_per_token_it_is_refused() -> None:
    config = {name: value for name, value in CONFIG.items() if name != "num_experts_per_tok"}
    with pytest.raises(InputError, match="num_experts_per_tok"):
        counted_model(config, _tensors(_plain), "a folder")


def test_counting_is_refused_where_no_weights_are(tmp_path: Path) -> None:
    for source in ("mixtral-8x7b", str(tmp_path)):
        with pytest.raises(InputError, match="none are there"):
            load_model(source, from_weights=True)
