"""Configs with keys removed, types changed and odd numbers: each makes a model, or one line says what is wrong.

WINGSPAN_FUZZ=20000 draws more; WINGSPAN_FUZZ_SEED another start.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest

from tests.specs.published import CONFIGS, content
from tests.specs.test_families import EVERYTHING
from wingspan import Description, load_cluster, simulate
from wingspan.errors import InputError
from wingspan.specs.families import FAMILIES, model_from_config

DRAWN = int(os.environ.get("WINGSPAN_FUZZ", "600"))
SEED = int(os.environ.get("WINGSPAN_FUZZ_SEED", "0"))
_ODD: list[Any] = [
    None, True, False, -1, 0, 1, 2, 3, 7, 13, 64, 1 << 30, 1 << 70, -(1 << 70), 0.5, 1e400, float("nan"), "", "x", "3",
    "linear_attention", "sparse", [], [0], [1, 2], ["x"], [None], [[1]], [3] * 2000, {}, {"x": 1}, {"0": 3},
    {"0": {"head_dim": "x"}},
]  # fmt: skip
_LONGEST_LINE = 500


def _places(config: dict[str, Any], at: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in config.items():
        yield (*at, key)
        if isinstance(value, dict):
            yield from _places(value, (*at, key))


def _mutated(config: dict[str, Any], draw: random.Random) -> dict[str, Any]:
    """One to three fields removed, changed to something odd, or off by a little."""
    changed: dict[str, Any] = json.loads(json.dumps(config))
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        *way, key = draw.choice(list(_places(changed)) or [("model_type",)])
        part: Any = changed
        for name in way:
            part = part[name]
        value = part.get(key)
        kind = draw.random()
        if kind < 0.25:
            part.pop(key, None)
        elif kind < 0.5 and isinstance(value, int):
            part[key] = value + draw.choice((-1, 1, 3, -value))
        elif kind < 0.6 and isinstance(value, list) and value:
            part[key] = draw.choice(
                (value[:-1], [*value, value[0]], value[::-1], [*value[:-1], draw.choice(_ODD)])
            )
        elif kind < 0.65:
            changed["model_type"] = draw.choice(list(FAMILIES))
        else:
            part[key] = deepcopy(draw.choice(_ODD))
    return changed


def complaint(config: dict[str, Any]) -> str | None:
    """What is wrong with how a config is taken; None where it makes a model, or one clear line."""
    try:
        model = model_from_config(config, "a/config.json")
        figures = (model.parameters.total, model.parameters.active, model.kv_values_per_token, model.heads)
        return None if min(figures) >= 0 else f"figures {figures}"
    except InputError as error:
        line = str(error)
        clear = line.startswith("a/config.json: ") and "\n" not in line and len(line) < _LONGEST_LINE
        return None if clear else f"not one clear line: {line}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def drawn(count: int, seed: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """So many changed configs, with the name of what they were."""
    draw = random.Random(seed)
    for _ in range(count):
        name, family = draw.choice(list(CONFIGS)), draw.choice(list(FAMILIES))
        if draw.random() < 0.4:
            yield family, _mutated({**EVERYTHING, "model_type": family}, draw)
        else:
            yield name, _mutated(content(name), draw)


def test_no_config_ends_in_a_traceback() -> None:
    wrong = {}
    for name, config in drawn(DRAWN, SEED):
        said = complaint(config)
        if said is not None:
            wrong.setdefault(said[:80], (name, said[:300], json.dumps(config)[:2000]))
    assert wrong == {}


def test_what_makes_a_model_is_predicted() -> None:
    cluster, wrong, predicted = load_cluster("h200"), [], 0
    for name, config in drawn(DRAWN // 5, SEED + 1):
        try:
            model = model_from_config(config, name)
            step = simulate(Description(model, cluster, ranks=8))
        except InputError:
            continue
        predicted += 1
        if not 0 < step.step_seconds < float("inf"):
            wrong.append((name, json.dumps(config)[:2000]))
    assert wrong == []
    assert predicted > DRAWN // 20


@pytest.mark.parametrize("name", list(CONFIGS)[SEED % 9 :: 9])
def test_a_config_without_one_of_its_fields(name: str) -> None:
    config = content(name)
    for key in config:
        assert complaint({k: v for k, v in config.items() if k != key}) is None, key
