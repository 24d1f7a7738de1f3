"""Which expert lives in which slot: the placement itself, strategies, scoring, differences."""
