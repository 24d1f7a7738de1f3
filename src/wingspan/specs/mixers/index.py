"""An index that chooses the tokens which attention reads."""

from __future__ import annotations

from pydantic import Field

from wingspan.limits import ContextTokens, Heads
from wingspan.specs.mixers.core import Core
from wingspan.specs.reading import Spec


class TokenIndex(Spec):
    """A few narrow heads of queries score one key a token, or one a block; attention reads the best.

    The lightning indexer of DeepSeek sparse attention (arXiv:2512.02556, section 2.1) scores every token, Qwen's
    the means of blocks.
    """

    heads: Heads
    head_dim: Heads
    top_tokens: ContextTokens
    block_tokens: ContextTokens = Field(default=1, description="tokens whose mean is one key that is scored")
    gated: bool = Field(
        default=False, description="a key has a gate per value beside it, which weighs it in its block's mean"
    )

    @property
    def kept_values(self) -> int:
        """A token's key, with its gate."""
        return self.head_dim * (1 + self.gated)

    @property
    def core(self) -> Core:
        """All its queries over all its keys; every tensor-parallel rank computes it whole."""
        return Core(self.heads, self.head_dim, 0, self.head_dim, stride=self.block_tokens)
