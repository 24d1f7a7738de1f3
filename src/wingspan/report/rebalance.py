"""The log of live balancing as lines that a person reads."""

from __future__ import annotations

from collections.abc import Sequence

from wingspan.report.units import bytes_text, seconds_text
from wingspan.schedule.rebalance_result import (
    Decision,
    Migrated,
    PlannerLost,
    RebalanceEvent,
    Rollback,
    Stopped,
)


def lines(events: Sequence[RebalanceEvent]) -> list[str]:
    """One line per event; decisions to stay that follow each other share one."""
    found: list[str] = []
    staying: list[Decision] = []
    for event in events:
        if isinstance(event, Decision) and event.verdict == "stay":
            staying.append(event)
            continue
        found.extend(_stays(staying))
        staying = []
        found.append(_line(event))
    return found + _stays(staying)


def happened(events: Sequence[RebalanceEvent]) -> list[RebalanceEvent]:
    """Without the decisions to stay: those are made every few steps."""
    return [event for event in events if not (isinstance(event, Decision) and event.verdict == "stay")]


def _stays(decisions: list[Decision]) -> list[str]:
    if len(decisions) < 2:
        return [_line(d) for d in decisions]
    first, last = decisions[0], decisions[-1]
    return [f"steps {first.step}-{last.step}: stay, {len(decisions)} times; the last: {_decision(last)}"]


def _line(event: RebalanceEvent) -> str:
    match event:
        case Decision():
            return f"step {event.step}: {event.verdict}; {_decision(event)}"
        case Migrated():
            return f"steps {event.first_step}-{event.last_step}: {_migration(event)}"
        case Rollback():
            return (
                f"step {event.step}: layer {event.layer} rolled back: expert {event.expert} from rank "
                f"{event.source} to rank {event.destination}: {event.reason}; the old placement stays"
            )
        case PlannerLost():
            return f"step {event.step}: {event.reason}; started another (number {event.restarts})"
        case Stopped():
            return f"step {event.step}: no more balancing: {event.reason}"


def _decision(decision: Decision) -> str:
    text = (
        f"imbalance {decision.imbalance_before:.2f} measured, {decision.imbalance_present:.2f} -> "
        f"{decision.imbalance_predicted:.2f} predicted; "
    )
    if decision.experts_moved:
        text += (
            f"gain {seconds_text(decision.gain_seconds)} over {decision.horizon_steps} steps, cost "
            f"{seconds_text(decision.cost_seconds)} ({bytes_text(decision.moved_bytes)} at the rate of "
            f"{decision.cost_basis}); "
        )
    return text + decision.reason


def _migration(migration: Migrated) -> str:
    text = (
        f"moved {migration.experts_moved} experts of {migration.layers} layers "
        f"({bytes_text(migration.moved_bytes)}), which added {seconds_text(migration.added_seconds)}"
    )
    if migration.layers_rolled_back:
        text += f"; {migration.layers_rolled_back} layers rolled back"
    if migration.imbalance_after is None or migration.step_seconds_after is None:
        return f"{text}; the run ended before the outcome could be measured"
    return (
        f"{text}; imbalance {migration.imbalance_before:.2f} -> {migration.imbalance_after:.2f} measured, step "
        f"{seconds_text(migration.step_seconds_before)} -> {seconds_text(migration.step_seconds_after)}"
    )
