"""What holds of one version of transformers only."""

from __future__ import annotations

import pytest
import transformers

from wingspan.runtime.setup.model_types import type_table

same_version = pytest.mark.skipif(
    transformers.__version__ != type_table().transformers,
    reason="what is expected was found with another version of transformers",
)
