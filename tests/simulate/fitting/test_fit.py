"""A fit recovers the profile that made its measurements, as far as they determine it, and says how far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest

from wingspan.deployment import Deployment
from wingspan.describe import Description, deployment_of
from wingspan.errors import InputError
from wingspan.interop.benchmarks.load import BenchmarkLoad
from wingspan.simulate.fitting.fit import Fit, described, errors, fit
from wingspan.simulate.fitting.loads import ServedLoads
from wingspan.simulate.fitting.measurements import Quantity
from wingspan.simulate.fitting.terms import Term
from wingspan.specs.engines import EngineKind, EngineProfile, engine_named
from wingspan.specs.requests import Requests, poisson_requests

PLAIN = engine_named(EngineKind.NONE)


@pytest.fixture(scope="module")
def served() -> Deployment:
    return deployment_of(Description(source="models/tiny", ranks=4, cluster="h100-sxm"))


def load(
    concurrency: int | None, *, prompt: int = 64, output: int = 32, rate: float | None = None
) -> BenchmarkLoad:
    """A load that nobody measured yet."""
    count = 6 * (concurrency or 8)
    requests = Requests(np.zeros(count), np.full(count, prompt), np.full(count, output))
    if rate is not None:
        requests = poisson_requests(rate, count, prompt, output)
    return BenchmarkLoad(f"{concurrency}.json", "test", None, requests, concurrency, 1.0, 1.0, 1.0)


def measured(deployment: Deployment, loads: Sequence[BenchmarkLoad], profile: EngineProfile) -> ServedLoads:
    """The loads, measured on a machine that is exactly as predicted with this profile."""
    found = ServedLoads(deployment, loads, 16, 256).predicted(profile)
    return ServedLoads(
        deployment,
        [
            BenchmarkLoad(
                one.source, one.format, one.model, one.requests, one.concurrency,
                figures[Quantity.TTFT], figures[Quantity.TPOT], figures[Quantity.OUTPUT],
            )
            for one, figures in zip(loads, found, strict=True)
        ],
        16,
        256,
    )  # fmt: skip


def fitted(deployment: Deployment, loads: Sequence[BenchmarkLoad], **terms: float) -> Fit:
    return fit(measured(deployment, loads, PLAIN.model_copy(update=terms)), EngineKind.NONE)


def test_several_loads_determine_every_term(served: Deployment) -> None:
    true = {"step_seconds": 3e-3, "sequence_seconds": 2e-4, "token_seconds": 1e-5}
    found = fitted(served, [load(1), load(8), load(32), load(64)], **true)
    assert found.terms[:3] == [Term.STEP, Term.SEQUENCE, Term.TOKEN]
    assert found.profile.expert_seconds == pytest.approx(0, abs=1e-6)
    for term, value in true.items():
        assert getattr(found.profile, term) == pytest.approx(value, rel=0.02), term
    assert max(errors(found, found.after)) < 0.005
    assert max(errors(found, found.held_out)) < 0.01
    assert min(errors(found, found.before)) > 0.5


def test_a_load_with_drawn_arrivals_is_fitted_too(served: Deployment) -> None:
    found = fitted(served, [load(None, rate=20.0), load(64)], step_seconds=3e-3, sequence_seconds=2e-4)
    assert max(errors(found, found.after)) < 0.01


def test_one_load_determines_one_term(served: Deployment) -> None:
    found = fitted(served, [load(8)], step_seconds=3e-3)
    assert found.terms == [Term.STEP]
    assert found.profile.step_seconds == pytest.approx(3e-3, rel=1e-3)
    assert found.held_out == [None]
    assert Term.SEQUENCE in found.left


def test_loads_of_one_batch_do_not_tell_sequences_from_steps(served: Deployment) -> None:
    found = fitted(served, [load(8), load(8, output=40)], step_seconds=3e-3)
    assert Term.SEQUENCE in found.left
    assert found.profile.step_seconds == pytest.approx(3e-3, rel=0.01)


def test_runs_of_one_load_count_as_one_load(served: Deployment) -> None:
    once = measured(served, [load(8)], PLAIN.model_copy(update={"step_seconds": 3e-3})).measured[0]
    runs = [replace(load(8), tpot_seconds=once.figures[Quantity.TPOT] * off) for off in (1.0, 1.0, 3.0)]
    found = fit(ServedLoads(served, runs, 16, 256), EngineKind.NONE)
    assert found.terms == [Term.STEP]
    assert [one.repeated for one in found.measured] == ["3 runs"]
    assert found.profile.step_seconds == pytest.approx(3e-3, rel=1e-3)


def test_experts_that_are_launched_one_by_one_are_told_from_steps(served: Deployment) -> None:
    true = {"step_seconds": 3e-3, "sequence_seconds": 1e-4, "token_seconds": 1e-5, "expert_seconds": 1e-4}
    found = fitted(served, [load(n) for n in (1, 4, 8, 16, 64)], **true)
    assert Term.EXPERT in found.terms
    for term, value in true.items():
        assert getattr(found.profile, term) == pytest.approx(value, rel=0.05), term


@pytest.mark.parametrize("apart", [False, True])
def test_first_tokens_tell_what_a_request_takes_and_how_prompts_are_computed(
    served: Deployment, apart: bool
) -> None:
    true = {"step_seconds": 5e-3, "sequence_seconds": 1e-4, "token_seconds": 1e-4, "request_seconds": 2e-3}
    found = fitted(served, [load(n) for n in (1, 2, 8, 16, 64)], **true, prompts_apart=apart)
    assert found.profile.prompts_apart == apart
    assert Term.REQUEST in found.terms
    for term, value in true.items():
        assert getattr(found.profile, term) == pytest.approx(value, rel=0.05), term
    for one, after in zip(found.measured, found.after, strict=True):
        assert after[Quantity.TTFT] == pytest.approx(one.figures[Quantity.TTFT], rel=0.02)


def test_a_prediction_that_is_too_long_shortens_its_kernels(served: Deployment) -> None:
    found = fitted(served, [load(8)], compute=0.5)
    assert found.terms == [Term.COMPUTE]
    assert found.profile.compute == pytest.approx(0.5, rel=1e-2)


@dataclass
class Noisy:
    """What was measured, each figure off by a few percent."""

    exact: ServedLoads

    @property
    def measured(self):
        off = np.random.default_rng(3).normal(1, 0.03, len(self.exact.measured))
        return [
            replace(one, figures={figure: value * factor for figure, value in one.figures.items()})
            for one, factor in zip(self.exact.measured, off, strict=True)
        ]

    def predicted(self, engine):
        return self.exact.predicted(engine)


def test_what_is_held_out_of_a_noisy_fit_says_its_range(served: Deployment) -> None:
    loads = [load(1), load(4), load(8), load(16), load(32), load(64)]
    true = PLAIN.model_copy(update={"step_seconds": 3e-3, "sequence_seconds": 2e-4})
    found = fit(Noisy(measured(served, loads, true)), EngineKind.NONE)
    off = max(errors(found, found.held_out))
    assert 0.005 < off < 0.15
    assert described(found, "mine").relative_error == pytest.approx(max(off, 0.03), abs=1e-3)
    assert found.profile.step_seconds == pytest.approx(3e-3, rel=0.1)


def test_the_exchanges_of_the_engine_that_was_given_are_kept(served: Deployment) -> None:
    vllm = engine_named(EngineKind.VLLM)
    found = fit(measured(served, [load(8)], vllm.model_copy(update={"step_seconds": 4e-3})), EngineKind.VLLM)
    assert found.profile.low_latency_dispatch == vllm.low_latency_dispatch
    assert found.profile.layer_seconds == vllm.layer_seconds
    # Loads of one deployment do not tell what its ranks agree on from the rest of a step.
    assert found.profile.step_seconds == pytest.approx(4e-3 + vllm.agreement_seconds, rel=1e-3)


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"prompt": 5000}, "was made for"),
        ({"output": 1}, "take a load that decodes"),
    ],
)
def test_a_load_that_does_not_fit_is_refused(
    served: Deployment, changed: dict[str, int], complaint: str
) -> None:
    with pytest.raises(InputError, match=complaint):
        ServedLoads(served, [load(2, **changed)], 16, 256)
