"""The largest figures that are taken, far above what exists: beyond them is a typing error, or work without an end.

All are checked before anything is computed from them.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

MOST_LAYERS = 1_000
MOST_EXPERTS = 16_384
"""Logical experts of one layer."""
MOST_RANKS = 16_384
MOST_SLOTS = 1 << 22
"""Over all layers and ranks: a step of so many is predicted in some seconds and 1 GB."""
MOST_TOKENS = 1 << 24
"""New tokens of one GPU and step."""
MOST_CONTEXT = 1 << 27
"""Tokens of one sequence."""
MOST_WIDTH = 1 << 24
"""Rows or columns of a matrix, a vocabulary included."""
MOST_TRACED = 1 << 30
"""Tokens of a drawn routing trace."""
MOST_HEADS = 1 << 14
MOST_PARAMETERS = 1 << 50
"""Parameters of one part beside the matrices."""
MOST_REQUESTS = 1_000_000
MOST_DRAWS = 1 << 23
"""Lengths of contexts drawn for one step."""

Layers = Annotated[int, Field(ge=1, le=MOST_LAYERS)]
ExpertCount = Annotated[int, Field(ge=1, le=MOST_EXPERTS)]
Ranks = Annotated[int, Field(ge=1, le=MOST_RANKS)]
Tokens = Annotated[int, Field(ge=1, le=MOST_TOKENS)]
ContextTokens = Annotated[int, Field(ge=1, le=MOST_CONTEXT)]
Width = Annotated[int, Field(ge=1, le=MOST_WIDTH)]
Heads = Annotated[int, Field(ge=1, le=MOST_HEADS)]
Parameters = Annotated[int, Field(ge=0, le=MOST_PARAMETERS)]
