"""A dispatcher that another package brings: found by its entry point, run like one of ours, refused where it cannot."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.runtime.checkpoints import configurations, write
from tests.runtime.dispatch.test_dispatch import expected, random_placement, routing, there_and_back
from tests.runtime.forked import on_ranks
from tests.runtime.test_run import execute
from wingspan.errors import InputError
from wingspan.runtime.dispatch.buffers import Buffers
from wingspan.runtime.dispatch.choice import Dispatchers, DispatchOptions
from wingspan.runtime.dispatch.counts import Counts
from wingspan.runtime.dispatch.deduplicated import DeduplicatedHandle, DeduplicatedRoute
from wingspan.runtime.dispatch.flat import FlatRoute
from wingspan.runtime.dispatch.hierarchical import HierarchicalHandle, HierarchicalRoute
from wingspan.runtime.dispatch.node_exchange import RowRoute
from wingspan.runtime.dispatch.precision import PrecisionHandle, PrecisionRoute
from wingspan.runtime.dispatch.registry import plugin
from wingspan.runtime.dispatch.shared import SharedHandle, SharedRoute
from wingspan.runtime.dispatch.streamed import StreamedRoute
from wingspan.runtime.model.step import flow_named
from wingspan.runtime.transport.transport import LocalTransport, Transport
from wingspan.specs.execution import DispatcherKind
from wingspan.specs.placement import Placement
from wingspan.specs.running import RowPrecision

CPU = torch.device("cpu")
ENTRY_POINTS = """[wingspan.dispatchers]
gather = gather_dispatcher:GatherDispatcher
missing = no_such_module:Dispatcher
mute = gather_dispatcher:GatherRoute
"""
ONE = Placement(np.array([[[0, 1]]]), 2)


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package as pip leaves it: its module on the path, its metadata beside it."""
    about = tmp_path / "site" / "gather_dispatcher-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: gather-dispatcher\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(about.parent)
    monkeypatch.syspath_prepend(Path(__file__).parent / "plugin")


def test_any_routing_and_placement(tmp_path):
    def work(transport: Transport) -> bool:
        shared, own = np.random.default_rng(3), np.random.default_rng((4, transport.world.rank))
        right = True
        for tokens in (transport.world.rank * 3, 5, 0):
            placement = random_placement(shared, 6, transport.world.size)
            options = DispatchOptions(plugin="gather")
            dispatchers = Dispatchers(placement, transport, Buffers(), CPU, options)
            assert dispatchers.kind is DispatcherKind.FLAT
            experts_TK, weights_TK = routing(own, tokens, 6, 2)
            x_TD = torch.tensor(own.standard_normal((tokens, 7)), dtype=torch.float32)
            inputs = (x_TD, experts_TK, weights_TK)
            home_TD, _ = there_and_back(dispatchers.for_layer(0), placement, transport.world.rank, *inputs)
            right &= torch.allclose(home_TD, expected(*inputs), atol=1e-5)
        return right

    with torch.no_grad():
        assert on_ranks(work, 3, tmp_path) == [True] * 3


def test_a_model_runs_through_it(tmp_path):
    folder = write(configurations()["qwen3_moe"], tmp_path / "checkpoint")
    result = execute(folder, 2, 3, tmp_path, dispatch=DispatchOptions(plugin="gather"))
    assert result.check is not None
    assert result.check.passed


def test_what_it_cannot_do_is_refused(tmp_path):
    folder = write(configurations()["qwen3_moe"], tmp_path / "checkpoint")
    with pytest.raises(InputError, match="one exchange under way; use sequential"):
        execute(
            folder, 1, 6, tmp_path, dispatch=DispatchOptions(plugin="gather"),
            flows={"prefill": flow_named("chunks:2")},
        )  # fmt: skip


def test_the_command_line_runs_through_it(tmp_path, monkeypatch):
    """In a process of its own, as a person would, with the package on the path."""
    tiny = Path(__file__).parents[3] / "models" / "tiny"
    paths = [tmp_path / "site", Path(__file__).parent / "plugin"]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, paths)))

    def wingspan(*options: str) -> subprocess.CompletedProcess[str]:
        given = ["run", str(tiny), "--ranks", "2", "--experts-per-rank", "4", "--prompt", "def", "--check"]
        command = [sys.executable, "-m", "wingspan.cli.main", *given, "--dispatcher", "gather", *options]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=150)

    ran = wingspan("--max-new-tokens", "2", "--json")
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["check"]["tokens_equal"]
    refused = wingspan("--row-precision", "float8")
    assert refused.returncode == 2
    assert "the dispatcher gather has only same" in refused.stderr


@pytest.mark.parametrize(
    ("options", "training", "said"),
    [
        (DispatchOptions(plugin="nothing"), False, "no dispatcher of that name; there are gather, missing, mute"),
        (DispatchOptions(plugin="missing"), False, "no_such_module:Dispatcher cannot be imported"),
        (DispatchOptions(plugin="mute"), False, "has no `capabilities`"),
        (DispatchOptions(plugin="gather"), True, "no gradients flow"),
        (DispatchOptions(precision=RowPrecision.FLOAT8, plugin="gather"), False, "gather has only same"),
    ],
)  # fmt: skip
def test_refusals_name_the_plugin(options, training, said):
    with pytest.raises(InputError, match=said):
        Dispatchers(ONE, LocalTransport(), Buffers(), CPU, options, training=training)


def test_without_a_package_there_is_none(monkeypatch):
    monkeypatch.setattr("sys.path", [])
    with pytest.raises(InputError, match="no installed package has one"):
        plugin("gather")


def test_counts_are_made_once_and_only_when_asked_for():
    known = torch.tensor([2, 0, 3])
    counts = Counts(known)
    assert len(counts) == 3
    assert "host_S" not in vars(counts)
    assert counts.tensor_S is known
    assert list(counts) == [2, 0, 3]
    assert counts.host_S is counts.host_S
    assert Counts([2, 0, 3], CPU).tensor_S.tolist() == [2, 0, 3]
    assert Counts([]).tensor_S.dtype == torch.int64


@pytest.mark.parametrize(
    "kind",
    [
        FlatRoute, DeduplicatedRoute, DeduplicatedHandle, HierarchicalRoute, HierarchicalHandle, RowRoute,
        SharedRoute, SharedHandle, PrecisionRoute, PrecisionHandle, StreamedRoute,
    ],
)  # fmt: skip
def test_nothing_is_written_into_a_route_or_handle(kind):
    assert kind.__dataclass_params__.frozen
    assert [
        field.name for field in dataclasses.fields(kind) if str(field.type).startswith(("list", "dict"))
    ] == []
