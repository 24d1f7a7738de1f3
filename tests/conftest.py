"""What every test needs: a process that can fork ranks, and no process left behind."""

from __future__ import annotations

import os
import signal

# A shell's background job ignores interrupts, and so would every process that the tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Before torch is imported: a process whose OpenMP threads have run must not fork ranks that use OpenMP.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
# As commands do: what ranks say is our own.
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")

from hypothesis import settings  # noqa: E402 - the environment is set first

# How long an example takes depends on what else the machine does.
settings.register_profile("wingspan", deadline=None)
settings.load_profile("wingspan")
