from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from wingspan.models import build_byte_tokenizer
from wingspan.models.tokenizer import END_ID, END_TOKEN, PAD_ID, VOCAB_SIZE

TOKENIZER = build_byte_tokenizer()


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_ids_are_the_utf8_bytes_and_come_back_as_the_text(text):
    ids = TOKENIZER.encode(text)
    assert bytes(ids) == text.encode()
    assert TOKENIZER.decode(ids) == text


def test_special_tokens_follow_the_bytes():
    assert len(TOKENIZER) == VOCAB_SIZE
    assert (TOKENIZER.eos_token_id, TOKENIZER.pad_token_id) == (END_ID, PAD_ID)
    assert TOKENIZER.encode(END_TOKEN) == [END_ID]


def test_auto_tokenizer_loads_what_is_saved(tmp_path):
    TOKENIZER.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    text = "def f(x):\n\treturn 'é' * x  # ünïcode\n"
    assert loaded.encode(text) == list(text.encode())
    assert loaded.eos_token_id == END_ID
