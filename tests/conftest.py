"""What every test needs: a process that can fork ranks, and no process left behind."""

from __future__ import annotations

import os

# Before torch is imported: a process whose OpenMP threads have run must not fork ranks that use OpenMP.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"

from hypothesis import settings

# How long an example takes depends on what else the machine does.
settings.register_profile("wingspan", deadline=None)
settings.load_profile("wingspan")
