"""A byte-level tokenizer: a token is a byte and its id is the byte's value, so it knows every text."""

from __future__ import annotations

from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

END_TOKEN = "<|end|>"
"""Ends a document, and so ends generation."""
PAD_TOKEN = "<|pad|>"
END_ID = 256
PAD_ID = 257
VOCAB_SIZE = 258
"""256 bytes and the two special tokens."""


def build_byte_tokenizer() -> PreTrainedTokenizerFast:
    """Build the tokenizer; `save_pretrained` writes what `AutoTokenizer` loads."""
    vocab = {char: byte for byte, char in bytes_to_unicode().items()}
    backend = Tokenizer(BPE(vocab=vocab, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([END_TOKEN, PAD_TOKEN])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token=END_TOKEN,
        pad_token=PAD_TOKEN,
        clean_up_tokenization_spaces=False,
    )
