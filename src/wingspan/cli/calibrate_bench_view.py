"""What a person sees of `wingspan calibrate --from-bench`: measured beside predicted, before and after the fit."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.table import Table

from wingspan.cli.console import Console
from wingspan.deployment import Deployment
from wingspan.simulate.fitting.fit import Fit, errors
from wingspan.simulate.fitting.measurements import Quantity
from wingspan.simulate.fitting.terms import Term
from wingspan.specs.engines import EngineProfile, profile_of
from wingspan.writing import json_text

_SAID = {
    Term.STEP: "per step",
    Term.SEQUENCE: "per sequence of a decode step",
    Term.TOKEN: "per token of a prompt",
    Term.LAYER: "per pass of a layer",
    Term.EXPERT: "per expert with rows",
    Term.REQUEST: "per request, one after another",
    Term.COMPUTE: "x the time that kernels take",
}


_CONTRADICTING = 0.15
"""Beyond it measurements are no noise around an engine whose steps have fixed costs."""


_NAMED = 2
"""How many of the measurements that a remark is about."""


def show(deployment: Deployment, found: Fit, profile: EngineProfile) -> None:
    """Print the summary to standard error."""
    console = Console(stderr=True, highlight=False)
    console.print(_head(deployment))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for name in ("load, tokens in + out", "", "measured", "before", "after", "off", "held out"):
        table.add_column(name, justify="left" if not name or "load" in name else "right")
    rows = zip(found.measured, found.before, found.after, found.held_out, strict=True)
    for one, before, after, held_out in rows:
        for place, (figure, measured) in enumerate(one.figures.items()):
            table.add_row(
                (one.described, one.repeated, "")[min(place, 2)],
                _NAMES[figure],
                _shown(figure, measured),
                _shown(figure, before[figure]),
                _shown(figure, after[figure]),
                f"{after[figure] / measured - 1:+.1%}",
                "" if held_out is None else f"{held_out[figure] / measured - 1:+.1%}",
            )
    console.print(table)
    for line in _lines(found, profile):
        console.print(line)


def _head(deployment: Deployment) -> str:
    """What was predicted."""
    model, cluster, engine = deployment.model, deployment.cluster, profile_of(deployment.options.engine).name
    return "; ".join(
        [
            f"{model.name} on {deployment.ranks} x {cluster.gpu.name} ({cluster.name}), {deployment.layout}",
            deployment.precisions.described,
            f"before: engine {engine}",
            *model.remarks,
        ]
    )


def print_json(found: Fit, profile: EngineProfile) -> None:
    """Everything as one JSON object on standard output."""
    rows = zip(found.measured, found.before, found.after, found.held_out, strict=True)
    data: dict[str, Any] = {
        "engine": profile.model_dump(mode="json"),
        "fitted": list(found.terms),
        "nothing": list(found.nothing),
        "not_told_apart": list(found.left),
        "measurements": [
            {
                "source": one.source,
                "load": one.described,
                "measured": one.figures,
                "before": before,
                "after": after,
                "held_out": held_out,
                "remarks": one.remarks,
            }
            for one, before, after, held_out in rows
        ],
    }
    print(json_text(data))


_NAMES = {
    Quantity.TPOT: "TPOT, ms",
    Quantity.TTFT: "TTFT, ms",
    Quantity.OUTPUT: "tokens/s",
    Quantity.STEP: "step, ms",
    Quantity.LAYERS: "layers, ms",
}


def _shown(figure: Quantity, value: float) -> str:
    return f"{value:,.1f}" if figure is Quantity.OUTPUT else f"{value * 1e3:,.3g}"


def _lines(found: Fit, profile: EngineProfile) -> list[str]:
    terms = [f"{term} = {_term(profile, term)} {_SAID[term]}" for term in found.terms]
    lines = [f"fitted: {'; '.join(terms)}"]
    if any(Quantity.TTFT in one.figures for one in found.measured):
        apart = "in a forward of their own, before" if profile.prompts_apart else "in one batch with"
        lines.append(f"prompts are computed {apart} the sequences that decode")
    if found.nothing:
        lines.append(f"nothing of it is missing: {', '.join(found.nothing)}")
    if found.left:
        few = "one measurement determines one term" if found.figures == 1 else "not told apart by these"
        lines.append(f"not fitted ({few}): {', '.join(found.left)}")
    if held_out := errors(found, found.held_out):
        lines.append(f"each load held out and predicted from the others: {max(held_out):.1%} off at most")
    else:
        lines.append("nothing was left to judge by: give three loads, and each is predicted from the others")
    if max(errors(found, found.after)) > _CONTRADICTING:
        lines.append(
            "no such engine gives all of these: was the machine busy, or served otherwise? Measure again"
        )
    lines.append("fitted to medians; means and tails are not used")
    said: dict[str, list[str]] = {}
    for one in found.measured:
        for remark in one.remarks:
            said.setdefault(remark, []).append(one.source)
    return lines + [f"- {remark}; {_few(sources)}" for remark, sources in said.items()]


def _few(sources: list[str]) -> str:
    """The first of several files, and how many more there are."""
    more = len(sources) - _NAMED
    return ", ".join(sources[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _term(profile: EngineProfile, term: Term) -> str:
    value = getattr(profile, term)
    if term is Term.COMPUTE:
        return f"{value:.3g}"
    if value == 0:
        return "0"
    return f"{value * 1e3:.3g} ms" if value >= 1e-4 else f"{value * 1e6:.3g} us"
