"""Published deployments as presets: each loads, stands wherever a deployment's file does, and says where it is from."""

from __future__ import annotations

from pathlib import Path

import pytest

from wingspan.deployment import is_deployment, load_deployment
from wingspan.deployment_presets import (
    DeploymentPreset,
    Terms,
    deployment_preset,
    deployment_presets,
    values_of,
)
from wingspan.describe import Description, deployment_of
from wingspan.errors import InputError
from wingspan.specs.reading import parse

TERMS = {
    "model": "deepseek-v3",
    "cluster": "h100-sxm",
    "ranks": 32,
    "experts_per_rank": 9,
    "phase": "decode",
    "tokens_per_gpu": 64,
    "context": 2000,
}


def test_every_load_of_every_preset_is_a_deployment():
    assert len(deployment_presets()) >= 12
    for name in deployment_presets():
        preset = deployment_preset(name)
        assert "arXiv" in preset.source or "." in preset.source
        for load in preset.published:
            terms = preset.terms_under(load)
            read = load_deployment(Path(f"{name}:{load.load}"))
            assert read.ranks == terms.ranks
            assert read.options.schedule == terms.schedule


def test_a_preset_stands_where_a_file_does_and_options_change_it():
    name = "cloudmatrix-ep320-decode:batch-24"
    assert is_deployment(name)
    said = deployment_of(Description(name, tokens_per_gpu=5))
    assert said.workload.tokens_per_gpu == 5
    assert said.model_copy(update={"workload": load_deployment(Path(name)).workload}) == load_deployment(
        Path(name)
    )


def test_one_expert_a_die_with_copies_of_the_shared_expert():
    found = load_deployment(Path("cloudmatrix-ep320-decode"))
    placement = found.build_placement()
    assert (placement.num_ranks, placement.slots_per_rank, placement.num_experts) == (320, 1, 257)
    # 256 routed, 32 copies of the shared one and 32 redundant: what the source has, by load alone.
    assert set(placement.replicas_LE[:, 256].tolist()) == {32}
    assert (placement.slots_LRS >= 0).all()


def test_options_say_the_same_of_a_model():
    said = Description(
        "deepseek-v3", cluster="cloudmatrix384", ranks=320, placement="balanced", shared_in_slots=True
    )
    found = load_deployment(Path("cloudmatrix-ep320-decode"))
    assert deployment_of(said).model == found.model
    assert deployment_of(said).build_placement() == found.build_placement()
    with pytest.raises(InputError, match="is a deployment, which says it itself"):
        deployment_of(Description("cloudmatrix-ep320-decode", shared_in_slots=True))


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"balance": 0.8, "placement": "random"}, "a balance is known of placement linear or balanced"),
        ({"model": "mixtral-8x7b", "shared_in_slots": True}, "has no shared expert"),
    ],
)
def test_terms_that_do_not_fit_are_refused(changes: dict[str, object], line: str):
    with pytest.raises(InputError, match=line):
        values_of(parse(Terms, {**TERMS, **changes}, "here"))


def test_wrong_names_say_which_there_are():
    with pytest.raises(InputError, match="no-such: no such deployment; presets: cloudmatrix"):
        deployment_preset("no-such")
    with pytest.raises(InputError, match=r"did you mean cloudmatrix-ep320-decode\?"):
        deployment_of(Description("cloudmatrix-ep320-decod"))
    with pytest.raises(InputError, match="decode:9: no such load; use one of batch-96"):
        load_deployment(Path("cloudmatrix-ep320-decode:9"))


def test_a_figure_needs_a_value():
    load = {"load": "one", "figure": "tokens/s"}
    with pytest.raises(InputError, match="a value needs a figure"):
        parse(
            DeploymentPreset,
            {"title": "t", "source": "s", "group": "g", "terms": TERMS, "published": [load]},
            "preset",
        )
