"""Ranks that a launcher started meet: who is late is named, what differs is named, and all end together."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time

import pytest

from tests.runtime.launch.launches import End, by_hand, free_port, launched
from wingspan.errors import InputError
from wingspan.runtime.launch.group import Group
from wingspan.runtime.launch.meeting.hosts import Seen, places
from wingspan.runtime.ranks.world import World

SLACK_SECONDS = 15.0
"""For a loaded machine."""

BAD_HELLO = b'{"wingspan": "meeting", "launch": "", "rank": "x", "size": 2}\n{"value": 1}\n'


def world(group: Group) -> str:
    assert group.place is not None
    found = group.place.world
    return json.dumps([found.rank, found.size, found.ranks_per_node, found.local_rank])


def agree(**given: str):
    """Work that compares what this process's environment has under GIVEN."""

    def work(group: Group) -> str:
        assert group.place is not None
        group.place.agree_on({"--max-new-tokens": os.environ.get("GIVEN", "4"), **given})
        return "agreed"

    return work


def lines(ends: list[End]) -> set[str]:
    return {end.said for end in ends}


def test_ranks_of_one_host_are_one_node(tmp_path):
    ends = launched(by_hand(3, free_port()), tmp_path, world)
    assert [json.loads(end.said) for end in ends] == [[rank, 3, 3, rank] for rank in range(3)]
    assert [end.told for end in ends] == [""] * 3


def test_a_late_rank_is_waited_for_and_named(tmp_path):
    port = free_port()
    ends = launched(by_hand(3, port), tmp_path, world, late_seconds=[0, 0, 2.5])
    assert [end.code for end in ends] == [0, 0, 0]
    for end in ends[:2]:
        assert f"waiting for rank 2 of 3 at 127.0.0.1:{port}" in end.told


def test_rank_0_may_be_the_late_one(tmp_path):
    port = free_port()
    ends = launched(by_hand(2, port), tmp_path, world, late_seconds=[2.5, 0])
    assert [end.code for end in ends] == [0, 0]
    assert f"waiting for rank 0 of 2 at 127.0.0.1:{port} (connection refused" in ends[1].told


@pytest.mark.parametrize("missing", [0, 2])
def test_a_rank_that_never_comes_ends_all_that_came_within_the_limit(missing, tmp_path):
    port = free_port()
    came = [e for e in by_hand(4, port) if int(e["RANK"]) != missing]
    ends = launched(came, tmp_path, world, limit_seconds=2)
    for end in ends:
        assert end.code == 1
        assert f"waiting for rank {missing} of 4 at 127.0.0.1:{port}" in end.said
        assert "gave up after 2 s" in end.said
        assert end.seconds < 2 + SLACK_SECONDS


def test_what_differs_is_named_with_both_values_on_all_ranks(tmp_path):
    environments = by_hand(3, free_port())
    environments[2]["GIVEN"] = "8"
    ends = launched(environments, tmp_path, agree())
    assert [end.code for end in ends] == [2, 2, 2]
    assert lines(ends) == {"--max-new-tokens is 4 on rank 0 and 8 on rank 2; give every rank the same"}


def test_what_is_the_same_is_agreed_soon(tmp_path):
    def work(group: Group) -> str:
        assert group.place is not None
        start = time.perf_counter()
        group.place.agree_on({f"option {n}": "x" * 1000 for n in range(50)})
        return str(time.perf_counter() - start)

    ends = launched(by_hand(2, free_port()), tmp_path, work)
    assert [end.code for end in ends] == [0, 0]
    assert min(float(end.said) for end in ends) < 0.2


def test_a_rank_that_ends_before_the_run_ends_the_others(tmp_path):
    def work(group: Group) -> str:
        if group.rank == 1:
            raise InputError("prompts.txt: no such file")
        return agree()(group)

    ends = launched(by_hand(3, free_port()), tmp_path, work)
    assert [end.code for end in ends] == [1, 2, 1]
    assert ends[0].said == ends[2].said == "rank 1 ended before the run began; it says why"


def test_the_same_rank_twice_is_named(tmp_path):
    environments = by_hand(3, free_port())
    environments[2]["RANK"] = "1"
    ends = launched(environments, tmp_path, world)
    assert [end.code for end in ends] == [2, 2, 2]
    for end in ends:
        assert "two processes are rank 1: process " in end.said


def test_rank_0_twice_is_named(tmp_path):
    environments = by_hand(2, free_port())
    environments[1]["RANK"] = "0"
    ends = launched(environments, tmp_path, world, late_seconds=[0, 1])
    assert [end.code for end in ends] == [2, 2]
    for end in ends:
        assert "two processes are rank 0: process " in end.said


def test_different_numbers_of_ranks_are_named(tmp_path):
    environments = by_hand(2, free_port())
    environments[1]["WORLD_SIZE"] = "4"
    ends = launched(environments, tmp_path, world)
    assert [end.code for end in ends] == [2, 2]
    for end in ends:
        assert "the number of ranks is 2 on rank 0 and 4 on rank 1" in end.said


def test_strangers_at_the_port_neither_hold_up_nor_end_a_launch(tmp_path):
    port = free_port()
    environments = by_hand(2, port)
    pid = os.fork()
    if pid == 0:
        end, held = time.monotonic() + 4, []
        while time.monotonic() < end:
            for words in (b"", b"GET / HTTP/1.1\r\n\r\n", b"\0" * 200_000, BAD_HELLO):
                try:
                    connection = socket.create_connection(("127.0.0.1", int(port)), 1)
                    connection.sendall(words)
                    held.append(connection)
                except OSError:
                    time.sleep(0.05)
        os._exit(0)
    ends = launched(environments, tmp_path, world, late_seconds=[0, 2])
    os.waitpid(pid, 0)
    assert [end.code for end in ends] == [0, 0], ends


def test_what_answers_and_is_no_rank_is_said(tmp_path):
    """Another program has the port: rank 0 says so at once, the others within the limit."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ends = launched(by_hand(2, port), tmp_path, world, limit_seconds=2)
    assert [end.code for end in ends] == [2, 1]
    assert f"port {port} on 127.0.0.1 is in use; set MASTER_PORT" in ends[0].said
    assert f"waiting for rank 0 of 2 at 127.0.0.1:{port} (what answers there" in ends[1].said
    assert ends[1].seconds < 2 + SLACK_SECONDS


def test_another_launch_at_the_port_is_told_from_this_one(tmp_path):
    port = free_port()
    slurm = [
        {"SLURM_PROCID": str(r), "SLURM_STEP_NUM_TASKS": "2", "SLURM_JOB_ID": job, "SLURM_TASKS_PER_NODE": "2",
         "MASTER_PORT": port}
        for job, r in (("7", 0), ("8", 1), ("7", 1))
    ]  # fmt: skip
    ends = launched(slurm, tmp_path, world, late_seconds=[0, 1, 3])
    assert [end.code for end in ends] == [0, 2, 0]
    assert f"port {port} of 127.0.0.1 is another launch's; set MASTER_PORT" in ends[1].said


def test_an_interface_that_is_not_there_is_named_on_every_rank(tmp_path):
    environments = by_hand(3, free_port())
    environments[1]["GLOO_SOCKET_IFNAME"] = "eth77"
    ends = launched(environments, tmp_path, world)
    assert [end.code for end in ends] == [2, 2, 2]
    for end in ends:
        assert "GLOO_SOCKET_IFNAME=eth77" in end.said
        assert "has no such network interface, but" in end.said
    environments[0]["GLOO_SOCKET_IFNAME"] = "eth78"
    ends = launched(environments, tmp_path, world)
    assert {end.code for end in ends} == {2}
    assert all("no such network interface" in end.said for end in ends)


def test_a_name_that_nobody_knows_is_said(tmp_path):
    environments = by_hand(2, free_port(), MASTER_ADDR="no-such-host.invalid")
    ends = launched(environments, tmp_path, world, limit_seconds=2)
    assert [end.code for end in ends] == [1, 1]
    assert "where rank 0 is, does not have that address" in ends[0].said
    assert "knows no host of that name" in ends[1].said


@pytest.mark.parametrize(
    ("environment", "mend"),
    [
        ({"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_LOCAL_SIZE": "2"}, "mpirun -x"),
        ({"PMI_RANK": "0", "PMI_SIZE": "4", "MPI_LOCALNRANKS": "2"}, "mpiexec -genv"),
        ({"RANK": "0", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"}, "MASTER_ADDR=HOST on every rank"),
        ({"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "4", "SLURM_TASKS_PER_NODE": "2(x2)"}, "MASTER_ADDR=HOST srun"),
    ],
)  # fmt: skip
def test_several_hosts_without_an_address_are_named_at_once(environment, mend, tmp_path):
    ends = launched([environment], tmp_path, world)
    assert ends[0].code == 2
    assert "ranks are on several hosts (2 of 4 on this one), and MASTER_ADDR does not say" in ends[0].said
    assert mend in ends[0].said


def test_of_slurms_nodes_the_first_is_where_rank_0_is(tmp_path):
    environment = {
        "SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2", "SLURM_TASKS_PER_NODE": "1(x2)",
        "SLURM_JOB_NODELIST": "no-such-host[03-05,9].invalid,login",
    }  # fmt: skip
    ends = launched([environment], tmp_path, world, limit_seconds=1)
    assert ends[0].code == 1
    assert "waiting for rank 0 of 2 at no-such-host03.invalid:29500" in ends[0].said


def seen(*hosts: str, hint: int | None = None) -> list[dict]:
    return [Seen(h, f"name-{h}", f"10.0.0.{ord(h)}", "10.0.0.1", hint).__dict__ for h in hosts]


def test_nodes_are_what_ranks_see():
    found = places(seen("a", "a", "b", "b"))
    assert (found["ranks_per_node"], found["local_rank_R"]) == (2, [0, 1, 0, 1])
    # Rank 0's host is known to others by the address that they reached.
    assert found["address_R"] == ["10.0.0.1", "10.0.0.1", "10.0.0.98", "10.0.0.98"]
    assert places(seen("a", "a", "a", "a", hint=2))["ranks_per_node"] == 2
    assert places(seen("a", "b", "b", hint=1))["ranks_per_node"] == 1


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (seen("a", "b", "a", "b"), "ranks 0, 2 on name-a; ranks 1, 3 on name-b"),
        (seen("a", "b", "b"), "unequal numbers of ranks: rank 0 on name-a; ranks 1-2 on name-b"),
        (seen("a", "a", hint=2)[:1] + seen("a", "a"), "2 on rank 0 and not given on rank 1"),
        (seen("a", "a", "a", hint=2), "3 ranks"),
    ],
)
def test_hosts_that_make_no_nodes_are_refused(given, text):
    with pytest.raises(InputError, match=text):
        places(given)


root = pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="needs root and Linux")


@pytest.fixture
def two_hosts():
    """Two network namespaces joined by one link, 10.88.0.1 and 10.88.0.2."""
    names = [f"wingspan-meet{os.getpid()}-{side}" for side in "ab"]
    ends = [f"wm{os.getpid() % 100000}{side}" for side in "ab"]

    def ip(*arguments: str) -> None:
        subprocess.run(["ip", *arguments], check=True, capture_output=True)

    try:
        for name in names:
            ip("netns", "add", name)
        peer = ["peer", "name", ends[1], "netns", names[1]]
        ip("link", "add", ends[0], "netns", names[0], "type", "veth", *peer)
        for number, (name, end) in enumerate(zip(names, ends, strict=True), start=1):
            ip("-n", name, "addr", "add", f"10.88.0.{number}/24", "dev", end)
            ip("-n", name, "link", "set", end, "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


@pytest.mark.root
@root
def test_two_hosts_by_rank_and_size_alone_are_two_nodes_and_exchange_rows(two_hosts, tmp_path):
    """No interface is named: each rank takes the one by which it reached the others."""

    def work(group: Group) -> str:
        def count(transport) -> None:
            place: World = transport.world
            total = transport.share(transport.exchange_counts(_ones(4))).sum()
            (tmp_path / f"found{place.rank}").write_text(f"{place.node} {place.local_rank} {int(total)}")

        group.run(count)
        return ""

    environments = by_hand(4, "29555", MASTER_ADDR="10.88.0.1")
    where = [two_hosts[rank // 2] for rank in range(4)]
    ends = launched(environments, tmp_path, work, namespaces=where)
    assert [end.code for end in ends] == [0] * 4, ends
    found = [(tmp_path / f"found{rank}").read_text() for rank in range(4)]
    assert found == ["0 0 16", "0 1 16", "1 0 16", "1 1 16"]


@pytest.mark.root
@root
def test_two_hosts_without_an_address_say_that_it_is_missing(two_hosts, tmp_path):
    ends = launched(by_hand(2, "29556"), tmp_path, world, namespaces=two_hosts, limit_seconds=2)
    assert [end.code for end in ends] == [1, 1]
    assert all("MASTER_ADDR is not set: ranks on other hosts do not find rank 0" in end.said for end in ends)


@pytest.mark.root
@root
def test_rank_0_on_another_host_than_its_address_is_said(two_hosts, tmp_path):
    environments = by_hand(2, "29557", MASTER_ADDR="10.88.0.2")
    ends = launched(environments, tmp_path, world, namespaces=two_hosts, limit_seconds=2)
    assert [end.code for end in ends] == [1, 1]
    assert "where rank 0 is, does not have that address" in ends[0].said
    assert "waiting for rank 0 of 2 at 10.88.0.2:29557 (connection refused)" in ends[1].said


def _ones(size: int):
    import torch

    return torch.ones(size, 1, dtype=torch.int64)
