"""Rows through staging: the same as without, in the order of copies and transfers that a GPU's stream needs."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from wingspan.runtime.launch.start import run_ranks
from wingspan.runtime.transport.choice import chosen
from wingspan.runtime.transport.staged import StagedTransport
from wingspan.runtime.transport.transport import LocalTransport, TorchTransport, Transport
from wingspan.runtime.transport.work_handle import WorkHandle
from wingspan.specs.running import TransportKind

CPU = torch.device("cpu")


def test_rows_and_counts_arrive_as_without_staging() -> None:
    def work(transport: Transport) -> None:
        rank, size = transport.world.rank, transport.world.size
        staged = StagedTransport(transport, CPU)
        counts = torch.arange(size)[:, None] + 10 * rank
        assert torch.equal(staged.exchange_counts(counts), transport.exchange_counts(counts))
        sent = torch.full((rank + 1, 3), float(rank))
        sent_R = [0] * size
        sent_R[(rank + 1) % size] = rank + 1
        received_R = [0] * size
        received_R[rank - 1] = (rank - 1) % size + 1
        received = torch.empty(sum(received_R), 3)
        staged.exchange_rows(received, sent, received_R, sent_R).wait()
        assert torch.equal(received, torch.full((sum(received_R), 3), float((rank - 1) % size)))
        assert staged.share(torch.tensor(rank)).tolist() == list(range(size))
        assert staged.broadcast(staged.gather(rank)) == list(range(size))
        assert staged.split(rank % 2).world.size == len(range(rank % 2, size, 2))

    run_ranks(work, 3, 3, CPU)


class Watched(LocalTransport):
    """Notes what happens in which order."""

    def __init__(self, events: list[str]) -> None:
        super().__init__()
        self.events = events

    def exchange_rows(
        self,
        received_NB: torch.Tensor,
        sent_NB: torch.Tensor,
        received_R: Sequence[int],
        sent_R: Sequence[int],
        *,
        bulk: bool = False,
    ) -> WorkHandle:
        self.events.append("transfer")
        pending = super().exchange_rows(received_NB, sent_NB, received_R, sent_R, bulk=bulk)
        events = self.events

        class Handle:
            def wait(self) -> None:
                events.append("arrived")
                pending.wait()

        return Handle()


def test_a_transfer_begins_when_the_stream_has_filled_its_staging_and_lands_when_it_has_arrived(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    events: list[str] = []
    staged = StagedTransport(Watched(events), CPU)
    monkeypatch.setattr(staged, "_finish_stream", lambda: events.append("stream finished"))
    received, sent = torch.zeros(2, 2), torch.ones(2, 2)
    pending = staged.exchange_rows(received, sent, [2], [2])
    sent.zero_()
    assert events == ["stream finished", "transfer"]
    assert not received.any(), "rows land when they are waited for"
    pending.wait()
    assert events[2:] == ["arrived"]
    assert torch.equal(received, torch.ones(2, 2)), "what was sent may be written again at once"


class Broken(LocalTransport):
    """Its peer has gone."""

    def exchange_rows(self, *_: object, **__: object) -> WorkHandle:
        raise RuntimeError("Connection closed by peer")


def test_an_error_of_the_transport_below_passes() -> None:
    rows = torch.ones(1, 1)
    with pytest.raises(RuntimeError, match="Connection closed"):
        StagedTransport(Broken(), CPU).exchange_rows(rows, rows, [1], [1])


@pytest.mark.parametrize("kind", [TransportKind.AUTO, TransportKind.SHM, TransportKind.TORCH])
def test_gpus_that_ranks_share_are_reached_through_the_host(
    kind: TransportKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The choice alone: no GPU is touched until rows move."""
    monkeypatch.setattr("wingspan.runtime.transport.choice.gpu_name", lambda: "one GPU")

    def work(transport: Transport) -> None:
        with chosen(kind, transport, torch.device("cuda")) as staged:
            assert isinstance(staged, StagedTransport)
            assert staged.holds_host

    run_ranks(work, 2, 2, CPU)


def test_ranks_with_gpus_of_their_own_use_nccl(monkeypatch: pytest.MonkeyPatch) -> None:
    def work(transport: Transport) -> None:
        monkeypatch.setattr(
            "wingspan.runtime.transport.choice.gpu_name", lambda: f"GPU {transport.world.rank}"
        )
        with chosen(TransportKind.AUTO, transport, torch.device("cuda")) as same:
            assert same is transport
            assert isinstance(same, TorchTransport)

    run_ranks(work, 2, 2, CPU)
