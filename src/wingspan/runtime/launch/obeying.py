"""Ranks that stay: forked once, they wait for commands, and carry each out together."""

from __future__ import annotations

import signal
import weakref
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from typing import Protocol

import torch

from wingspan.errors import RunError
from wingspan.runtime.launch.group import Group
from wingspan.runtime.launch.start import started_ranks
from wingspan.runtime.transport.choice import chosen
from wingspan.runtime.transport.transport import Transport

Obey = Callable[[object], object]
"""What a rank does at a command; rank 0's result is the answer."""

END = "end"
"""The last command. A pipe that is closed would not do: other processes may have it open too."""


class Commanded(Protocol):
    """Ranks that wait for commands, as who commands them sees them."""

    size: int

    @property
    def words(self) -> Sequence[int]:
        """File descriptors, of which one can be read once a rank has ended; none where another process watches them."""

    def check(self) -> None:
        """Between commands: raises `WingspanError` where a rank has ended."""

    def ask(self, command: object) -> object:
        """Have every rank carry out a command, and return rank 0's result; raises `WingspanError` where one fails."""

    def close(self) -> None:
        """Let them end."""


class ObeyingRanks:
    """The ranks of one machine, asleep between commands. They end with the process, and the thread, that made them.

    Args:
        prepare: makes a rank ready over its transport, and says how it obeys.
        group: the ranks to fork.
        device: where their tensors live.

    Raises:
        WingspanError: a rank raised it while it made itself ready, or died.
    """

    def __init__(
        self,
        prepare: Callable[[Transport], Obey],
        group: Group,
        device: torch.device,
    ) -> None:
        self.size = group.size
        pipes = [Pipe() for _ in range(group.size)]

        def live(joined: Transport) -> None:
            # Ctrl-C reaches every process of a terminal; what it means is decided by who commands.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            mine = pipes[joined.world.rank][1]
            for ours, theirs in pipes:
                ours.close()
                if theirs is not mine:
                    theirs.close()
            with chosen(group.kind, joined, device) as transport:
                obey_all(prepare(transport), mine, answers=joined.world.rank == 0)

        stack = ExitStack()
        self._ranks = stack.enter_context(
            started_ranks(live, group.size, group.ranks_per_node, device, group.nodes)
        )
        for _, theirs in pipes:
            theirs.close()
        self._pipes = [ours for ours, _ in pipes]
        # Also where nobody closes it: at the end of the interpreter, or when it is no longer referred to.
        self._end = weakref.finalize(self, stack.close)
        self._answer()

    @property
    def alive(self) -> bool:
        """Whether they take commands; after an error or the end they do not."""
        return self._end.alive

    @property
    def words(self) -> list[int]:
        """File descriptors, of which one can be read once a rank has ended."""
        return self._ranks.words if self.alive else []

    def check(self) -> None:
        """Between commands, when no rank has a reason to end.

        Raises:
            WingspanError: a rank has ended; all have then.
        """
        if wait(self.words, timeout=0):
            self._fail()

    def ask(self, command: object) -> object:
        """Have every rank carry out a command, and return rank 0's result.

        Raises:
            WingspanError: a rank raised it, or died; all have ended then.
        """
        if not self.alive:
            raise RunError("the ranks have ended; start new ones")
        try:
            for pipe in self._pipes:
                pipe.send(command)
        except OSError:
            self._fail()
        return self._answer()

    def close(self) -> None:
        """Let the ranks end, and wait for them."""
        if not self.alive:
            return
        try:
            for pipe in self._pipes:
                pipe.send(END)
            self._ranks.wait()
        except OSError:
            self._fail()
        finally:
            self._end()

    def _answer(self) -> object:
        try:
            ready = wait([self._pipes[0], *self._ranks.words])
            # An answer counts although a rank has failed since: the next command will find that.
            if self._pipes[0] in ready:
                return self._pipes[0].recv()
        except (EOFError, OSError):
            pass
        except BaseException:
            # Interrupted: ranks in the midst of a command take no other.
            self._end()
            raise
        return self._fail()

    def _fail(self) -> object:
        """Raise what the ranks say of their end."""
        try:
            self._ranks.wait()
            raise RunError("the ranks ended without a word")
        finally:
            self._end()


def obey_all(obey: Obey, pipe: Connection, *, answers: bool) -> None:
    """Answer that the rank is ready, then every command, until the last."""
    answer: object = None
    command: object = None
    while command != END:
        if answers:
            pipe.send(answer)
        try:
            command = pipe.recv()
        except EOFError:
            return
        answer = obey(command) if command != END else None
