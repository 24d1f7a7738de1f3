"""A testbed is really there, carries what ranks send at its rate, and goes without a trace."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.runtime.forked import on_ranks
from wingspan.errors import InputError, RunError
from wingspan.placement.simple import linear
from wingspan.runtime.dispatch.buffers import Buffers
from wingspan.runtime.dispatch.choice import Dispatchers, DispatchOptions
from wingspan.runtime.transport.choice import TransportKind, chosen
from wingspan.runtime.transport.transport import Transport
from wingspan.specs.execution import DispatcherKind
from wingspan.testbed import counters, iproute, network
from wingspan.testbed.layout import Layout, make_layout

MODEL = Path(__file__).parents[2] / "models" / "tiny"
CPU = torch.device("cpu")
NAME = f"test{os.getpid()}"

root = pytest.mark.root
possible = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0 or not shutil.which("tc"),
    reason="needs Linux, root and iproute2",
)


@pytest.fixture
def names() -> Iterator[list[str]]:
    """Two names for testbeds, removed afterwards whatever happened."""
    made = [NAME, f"{NAME}_b"]
    yield made
    for name in made:
        network.down(name)


def namespaces(name: str) -> list[str]:
    return [n for n in subprocess.check_output(["ip", "netns", "list"], text=True).split() if name in n]


def send_across(size_bytes: int):
    """Rank r of node 0 sends to rank r of node 1; says how long it took."""

    def work(transport: Transport) -> float:
        world = transport.world
        partner = (world.rank + world.ranks_per_node) % world.size
        rows = size_bytes if world.node == 0 else 0
        sent_R, received_R = [0] * world.size, [0] * world.size
        sent_R[partner], received_R[partner] = rows, size_bytes - rows
        received = torch.empty(size_bytes - rows, dtype=torch.uint8)
        transport.share(torch.zeros(1))
        start = time.monotonic()
        transport.exchange_rows(received, torch.zeros(rows, dtype=torch.uint8), received_R, sent_R).wait()
        return time.monotonic() - start

    return work


def carried(layout: Layout, size_bytes: int, folder: Path) -> tuple[list[counters.LinkCount], float]:
    before = counters.read(layout)
    seconds = on_ranks(
        send_across(size_bytes), layout.places.size, folder, layout.ranks_per_node, layout.places
    )
    return counters.difference(before, counters.read(layout)), max(seconds)


@root
@possible
def test_ranks_meet_over_shaped_links(names, tmp_path):
    """Two ranks of node 0 send 1 MB each to node 1 over 80 Mbit/s: 0.2 s; the kernel counts it once."""
    layout = make_layout(names[0], 2, 2, "80mbit")
    network.up(layout)
    (from_0, from_1), seconds = carried(layout, 1_000_000, tmp_path)
    assert 2.0e6 <= from_0.sent_bytes <= 2.0e6 * 1.03
    assert (
        abs(from_1.received_bytes - from_0.sent_bytes) < 1000
    )  # all but what travelled between two readings
    assert from_1.sent_bytes < 0.1e6
    assert 0.19 <= seconds < 1.0


@root
@possible
def test_each_flow_stays_on_one_processor(names):
    """Else packets overtake each other under load, and TCP takes some for lost."""
    layout = make_layout(names[0], 2, 2, "1gbit", "1gbit", 1)
    network.up(layout)
    for namespace in namespaces(layout.name):
        shown = 'for f in /sys/class/net/*/queues/rx-*/rps_cpus; do echo "$f $(cat $f)"; done'
        lines = subprocess.check_output(["ip", "netns", "exec", namespace, "sh", "-c", shown], text=True)
        masks = {
            file: int(mask.replace(",", ""), 16)
            for file, mask in map(str.split, lines.splitlines())
            if "port" in file or "eth" in file or "up" in file or "down" in file
        }
        assert masks
        assert set(masks.values()) == {2 ** (os.cpu_count() or 1) - 1}


@root
@possible
def test_a_group_uplink_is_the_narrow_place(names, tmp_path):
    """Node 0 to node 1 in one group at 400 Mbit/s, across groups at 40: ten times as long."""
    seconds = {}
    for name, nodes_per_group in zip(names, (2, 1), strict=True):
        layout = make_layout(name, 2, 1, "400mbit", "40mbit", nodes_per_group)
        network.up(layout)
        seconds[nodes_per_group] = carried(layout, 1_000_000, tmp_path)[1]
    assert seconds[1] >= 0.19
    assert seconds[1] > 2 * seconds[2]


@root
@possible
def test_two_stand_side_by_side_and_go_alone(names):
    for name in names:
        network.up(make_layout(name, 2, 1, "1gbit"))
    assert network.get(names[0]) == make_layout(names[0], 2, 1, "1gbit")
    network.down(names[0])
    assert namespaces(f"{names[0]}-") == []
    assert network.get(names[1]).nodes == 2


@root
@possible
def test_taken_and_missing_names_are_told(names):
    network.up(make_layout(names[0], 1, 1, "1gbit"))
    with pytest.raises(InputError, match="is up already"):
        network.up(make_layout(names[0], 1, 1, "1gbit"))
    with pytest.raises(InputError, match="is not up"):
        network.get(names[1])


@root
@possible
def test_down_ends_what_runs_there_and_clears_a_half_made_one(names):
    layout = make_layout(names[0], 2, 1, "1gbit")
    network.up(layout)
    subprocess.run(["ip", "netns", "delete", layout.switch], check=True)
    sleeper = subprocess.Popen(["ip", "netns", "exec", layout.node(1), "sleep", "60"])
    while sleeper.pid not in next(f.processes for f in network.find() if f.name == names[0]):
        time.sleep(0.01)
    with pytest.raises(InputError, match="incomplete"):
        network.get(names[0])
    network.down(names[0])
    assert sleeper.wait(timeout=5) != 0
    assert namespaces(names[0]) == []


@root
@possible
@pytest.mark.parametrize("kind", list(DispatcherKind))
def test_a_rank_killed_inside_dispatch_ends_all_and_leaves_nobody_in_the_nodes(names, tmp_path, kind):
    layout = make_layout(names[0], 2, 2, "400mbit")
    network.up(layout)

    def work(gloo: Transport) -> None:
        with chosen(TransportKind.AUTO, gloo, CPU) as transport, torch.inference_mode():
            options = DispatchOptions(kind)
            dispatcher = Dispatchers(linear(1, 4, 4), transport, Buffers(), CPU, options).for_layer(0)
            for step in range(1000):
                experts_TK = torch.randint(4, (8, 1))
                (route,) = dispatcher.route(torch.ones(8, 16), experts_TK, torch.ones(8, 1), chunks=1, lane=0)
                coming = dispatcher.send(route)
                if step == 20 and gloo.world.rank == 3:
                    os.kill(os.getpid(), signal.SIGKILL)
                received = coming.wait()
                dispatcher.send_back(received.rows_ND, received.handle).wait()

    start = time.monotonic()
    with pytest.raises(RunError, match="rank 3 was killed by signal SIGKILL"):
        on_ranks(work, 4, tmp_path, 2, layout.places)
    assert time.monotonic() - start < 10
    assert [found.processes for found in network.find() if found.name == names[0]] == [[]]


@root
@possible
def test_a_refused_step_leaves_nothing(names, monkeypatch):
    monkeypatch.setattr(network, "_shape", lambda device, rate_bits: f"qdisc add dev {device} root nonsense")
    with pytest.raises(RunError, match="nonsense"):
        network.up(make_layout(names[0], 2, 1, "1gbit"))
    assert namespaces(names[0]) == []


@root
@possible
def test_the_main_job_runs_in_all_nodes_and_its_bytes_reconcile(names, tmp_path):
    network.up(make_layout(names[0], 2, 2, "400mbit"))
    command = [sys.executable, "-m", "wingspan.cli.main", "testbed", "run", "--name", names[0], "--"]
    job = ["wingspan", "run", str(MODEL), "--experts-per-rank", "2", "--prompt-ids", ",".join(["5"] * 400)]
    done = subprocess.run(
        [*command, *job, "--max-new-tokens", "2", "--json"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)["prefill_report"]
    assert (report["ranks"], report["ranks_per_node"]) == (4, 2)
    assert sum(report["sent_across_nodes_bytes"]) > 0
    ratios = [float(line.split("│")[-2]) for line in done.stderr.splitlines() if line.startswith("│")]
    assert len(ratios) == 2
    assert all(ratio > 1.0 for ratio in ratios)


def test_without_root_it_says_so(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(InputError, match="needs root"):
        iproute.check_possible()


def test_without_the_tools_it_names_the_package(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda tool: None)
    with pytest.raises(InputError, match="apt-get install -y iproute2"):
        iproute.check_possible()


@root
@possible
def test_predicted_bytes_are_those_that_the_kernel_counts_on_four_nodes_of_four(names, tmp_path):
    network.up(make_layout(names[0], 4, 4, "400mbit"))
    config = json.loads((MODEL / "config.json").read_text())
    config |= {"hidden_size": 1024, "num_experts": 16, "num_hidden_layers": 3, "first_k_dense_replace": 1}
    (tmp_path / "model.json").write_text(json.dumps(config))
    wingspan = [sys.executable, "-m", "wingspan.cli.main"]
    deployment = str(tmp_path / "d.json")
    planned = [
        *wingspan, "simulate", str(tmp_path / "model.json"), "--ranks", "16", "-b", "64", "--context", "64", "--phase",
        "prefill", "--dispatcher", "hierarchical", "--placement", "random", "--out", deployment,
    ]  # fmt: skip
    subprocess.run(planned, capture_output=True, check=True)
    compared = [
        *wingspan, "testbed", "run", "--name", names[0], "--", "wingspan", "compare", deployment, "--steps", "1",
        "--cluster", "h100-sxm", "--json",
    ]  # fmt: skip
    done = subprocess.run(compared, capture_output=True, text=True, check=False, timeout=150)
    assert done.returncode == 0, done.stderr
    predicted, measured = (json.loads(done.stdout)[kind] for kind in ("predicted", "measured"))
    across = sum(predicted["sent_across_nodes_bytes"])
    assert across == pytest.approx(sum(measured["sent_across_nodes_bytes"]), rel=0.001)
    (link,) = (each for each in measured["links"] if "kernel" in each["link"])
    assert link["total_bytes"] == pytest.approx(across, rel=0.03)
