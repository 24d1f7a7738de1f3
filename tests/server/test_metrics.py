"""What the server tells Prometheus, and that the dashboard of docs/ asks for nothing else."""

from __future__ import annotations

import json
import re
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tests.cli.command import REPOSITORY
from wingspan.runtime.generation.ledger import StepResult
from wingspan.runtime.generation.requests import Length
from wingspan.runtime.generation.sampling import Sampling
from wingspan.server.answers import Answer, Ask
from wingspan.server.metrics import OWN, VLLM, Metrics
from wingspan.server.text import TextStream

DASHBOARD = json.loads((REPOSITORY / "docs" / "grafana.json").read_text())


def told(metrics: Metrics) -> dict[str, tuple[set[str], float]]:
    """Labels and value of every series, summed over what its other labels say."""
    found: dict[str, tuple[set[str], float]] = {}
    for family in text_string_to_metric_families(metrics.text()[0].decode()):
        for sample in family.samples:
            labels, value = found.get(sample.name, (set(), 0.0))
            found[sample.name] = (labels | set(sample.labels), value + sample.value)
    return found


def served(*prefixes: str) -> Metrics:
    """After one answer of three tokens."""
    metrics = Metrics("tiny", prefixes)
    answer = Answer(Ask((1, 2), Sampling(), Length(3)), TextStream(lambda ids: "x" * len(ids)), 10.0)
    answer.begun_seconds = 10.5
    metrics.begun(answer)
    for now in (11.0, 11.1, 11.4):
        metrics.stepped(StepResult(tokens={0: 7}), 0.1)
        metrics.token(answer, now)
        answer.first_token_seconds = answer.first_token_seconds or now
        answer.newest_token_seconds = now
        answer.push(7, None, None)
    metrics.ended(answer, "length", 11.4)
    return metrics


def test_an_answer_is_counted_and_timed() -> None:
    values = {name: round(value, 6) for name, (_, value) in told(served(OWN)).items()}
    assert values["wingspan:prompt_tokens_total"] == 2
    assert values["wingspan:generation_tokens_total"] == 3
    assert values["wingspan:request_success_total"] == 1
    assert values["wingspan:request_queue_time_seconds_sum"] == 0.5
    assert values["wingspan:time_to_first_token_seconds_sum"] == 1.0
    assert values["wingspan:inter_token_latency_seconds_sum"] == 0.4
    assert values["wingspan:request_time_per_output_token_seconds_sum"] == 0.2
    assert values["wingspan:e2e_request_latency_seconds_sum"] == 1.4
    assert values["wingspan:step_seconds_count"] == 3


def test_under_vllms_names_are_only_what_vllm_counts_too() -> None:
    names = {name.partition(":")[::2] for name in told(served(OWN, VLLM))}
    own, twins = ({name for prefix, name in names if prefix == which} for which in (OWN, VLLM))
    assert twins < own
    assert {name for name in own - twins if not name.endswith(("_bucket", "_sum", "_count", "_created"))} == {
        "expert_migrations_total", "experts_moved_total",
    }  # fmt: skip


def queries() -> list[str]:
    """Everything that the dashboard asks Prometheus for."""
    variables: list[Any] = DASHBOARD["templating"]["list"]
    return [
        *(target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]),
        *(annotation["expr"] for annotation in DASHBOARD["annotations"]["list"]),
        *(variable["query"]["query"] for variable in variables if variable["type"] == "query"),
    ]


def test_the_dashboard_asks_for_series_and_labels_that_are_there() -> None:
    series = told(served(OWN))
    for query in queries():
        names = re.findall(r"[a-z_]+:\w+", query)
        assert len(names) == 1, query
        labels, _ = series[names[0]]
        asked = re.findall(r"(\w+)=~", query) + re.findall(r"by \((\w+)\)", query)
        asked += re.findall(r"label_values\([^,]+, (\w+)\)", query)
        assert asked, query
        assert set(asked) <= labels, query
        assert query.count("(") == query.count(")"), query


def test_the_dashboard_shows_every_metric() -> None:
    shown = {name for query in queries() for name in re.findall(r"[a-z_]+:\w+", query)}
    families = text_string_to_metric_families(served(OWN).text()[0].decode())
    # What a client library adds about when a counter began is nobody's question.
    names = {f.name for f in families if not f.name.endswith("_created")}
    assert {n for n in names if not any(s.startswith(n) for s in shown)} == set()


def test_the_dashboards_panels_have_places_of_their_own() -> None:
    places = [tuple(panel["gridPos"][key] for key in "xy") for panel in DASHBOARD["panels"]]
    assert len(set(places)) == len(places) == len({panel["id"] for panel in DASHBOARD["panels"]})
    assert {panel["datasource"]["uid"] for panel in DASHBOARD["panels"]} == {"${datasource}"}
