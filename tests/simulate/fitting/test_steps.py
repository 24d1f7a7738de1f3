"""Steps of traces determine what loads of servers cannot: time in layers apart from time between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from wingspan.deployment import Deployment
from wingspan.describe import Description, deployment_of
from wingspan.errors import InputError
from wingspan.interop.benchmarks.chrome_trace import TracedStep
from wingspan.simulate.fitting.fit import errors, fit
from wingspan.simulate.fitting.measurements import Quantity
from wingspan.simulate.fitting.steps import TracedSteps
from wingspan.simulate.fitting.terms import Term
from wingspan.specs.engines import EngineKind, engine_named

PLAIN = engine_named(EngineKind.NONE)


@pytest.fixture(scope="module")
def traced() -> Deployment:
    return deployment_of(
        Description(source="models/tiny", ranks=4, cluster="h100-sxm", context=100, tokens_per_gpu=8)
    )


def step(
    tokens: int | None, *, ranks: int = 4, phase: str | None = "decode", layers: float | None = 1.0
) -> TracedStep:
    return TracedStep("t.json", phase, tokens, ranks, 3, 1.0, layers)


def measured(deployment: Deployment, steps: Sequence[TracedStep], **terms: float) -> TracedSteps:
    """The steps as this machine would take them with these terms."""
    found = TracedSteps(deployment, steps, {"context"}).predicted(PLAIN.model_copy(update=terms))
    return TracedSteps(
        deployment,
        [
            replace(
                one,
                seconds=figures[Quantity.STEP],
                layers_seconds=None if one.layers_seconds is None else figures[Quantity.LAYERS],
            )
            for one, figures in zip(steps, found, strict=True)
        ],
        {"context"},
    )


def test_a_trace_with_layers_tells_steps_and_layers_apart(traced: Deployment) -> None:
    true = {"step_seconds": 4e-3, "layer_seconds": 2e-4}
    found = fit(measured(traced, [step(8)], **true), EngineKind.NONE)
    assert found.terms == [Term.STEP, Term.LAYER]
    for term, value in true.items():
        assert getattr(found.profile, term) == pytest.approx(value, rel=1e-3), term


def test_several_batches_tell_more(traced: Deployment) -> None:
    true = {"step_seconds": 4e-3, "layer_seconds": 2e-4, "sequence_seconds": 1e-4}
    found = fit(measured(traced, [step(4), step(32), step(6), step(128)], **true), EngineKind.NONE)
    assert max(errors(found, found.after)) < 0.01
    assert max(errors(found, found.held_out)) < 0.05
    for term, value in true.items():
        assert getattr(found.profile, term) == pytest.approx(value, rel=0.03), term


def test_a_trace_without_layers_determines_one_term(traced: Deployment) -> None:
    found = fit(measured(traced, [step(8, layers=None)], step_seconds=4e-3), EngineKind.NONE)
    assert found.terms == [Term.STEP]


def test_a_prefill_is_predicted_as_one(traced: Deployment) -> None:
    found = TracedSteps(traced, [step(1024, phase="prefill")], {"context"}).measured[0]
    assert found.described == "prefill, 1,024 tokens"
    assert found.repeated == "3 steps"


@pytest.mark.parametrize(
    ("one", "said", "complaint"),
    [
        (step(8), set(), "give `context`"),
        (step(8, ranks=2), {"context"}, "has 2 ranks, the deployment 4"),
        (step(None), {"context"}, "give `tokens_per_gpu`"),
        (step(8), {"context", "tokens_per_gpu"}, "had 8 tokens; leave out `tokens_per_gpu`"),
        (step(8), {"context", "phase"}, "are decode; leave out `phase`"),
    ],
)
def test_what_a_trace_does_not_say_is_asked_for(
    traced: Deployment, one: TracedStep, said: set[str], complaint: str
) -> None:
    with pytest.raises(InputError, match=complaint):
        TracedSteps(traced, [one], said)
