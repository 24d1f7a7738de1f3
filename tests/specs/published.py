"""Configurations of published models: the presets, and those that stand in `tests/cases/configs`.

Each is a `config.json` reduced to what sizes are made of, with where it is from, and under `published` the figures of
its publisher: `total` and `active` in billions (or with a T in trillions) as they are written, what they leave out
(`total_without`, `active_without`), what they count besides (`counts_too`), to what they are rounded (`to`), and where
they stand.

    python -m tests.specs.published          compares all with transformers' modules, built without memory
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from wingspan.specs.models import MODEL_PRESETS, load_model

FOLDERS = (MODEL_PRESETS, Path(__file__).parents[1] / "cases" / "configs")
CONFIGS = {file.stem: file for folder in FOLDERS for file in sorted(folder.glob("*.json"))}
_WITHOUT_MODULES = {
    "arctic",
    "bailing_moe",
    "bailing_moe_v2",
    "git",
    "grok-1",
    "hunyuan",
    "kimi_k3",
    "minimax_m1",
    "longcat_flash",
    "step3_text",
}
"""Types of which transformers has none, or some that no token passes."""
_LARGEST_ERROR = 0.005


def content(name: str) -> dict[str, Any]:
    """The file of one, as it stands."""
    found: dict[str, Any] = json.loads(CONFIGS[name].read_text())
    return found


PUBLISHED = {name: found["published"] for name in CONFIGS if "published" in (found := content(name))}
COMPARABLE = [name for name in PUBLISHED if content(name)["model_type"] not in _WITHOUT_MODULES]


def difference(name: str) -> float:
    """By how much of transformers' total ours is off."""
    import torch

    from tests.specs.modules import parameters_of

    with torch.device("meta"):
        expected = parameters_of(_text_configuration(content(name)))
    return load_model(str(CONFIGS[name])).parameters.total / expected - 1


def _text_configuration(config: dict[str, Any]) -> Any:
    from transformers import CONFIG_MAPPING

    from wingspan.specs.families import TEXT_PARTS

    tied = {key: config[key] for key in ("tie_word_embeddings",) if key in config}
    part = {**tied, **config.get("text_config", config)}
    kind = part.get("model_type", config["model_type"])
    if kind not in CONFIG_MAPPING:
        kind = TEXT_PARTS.get(kind, kind)
    kind = {"kimi_k2": "deepseek_v3", "llama4": "llama4_text", "step3p5": "step3p7"}.get(kind, kind)
    ours = ("model_type", "quantization_config", "source", "published")
    fields = {key: value for key, value in part.items() if key not in ours}
    if "text_config" in CONFIG_MAPPING[kind].sub_configs_defaults:
        return CONFIG_MAPPING[kind](text_config=fields).get_text_config()
    return CONFIG_MAPPING[kind](**fields).get_text_config()


if __name__ == "__main__":
    names = sys.argv[1:] or COMPARABLE
    for name in names:
        off = difference(name)
        print(f"{name:32} {off:+.5%}{'' if abs(off) < _LARGEST_ERROR else '  WRONG'}", flush=True)
