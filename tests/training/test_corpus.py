import torch
from training.corpus import (
    SHARES,
    Document,
    fingerprint,
    fixed_batch,
    sample_batch,
    standard_library,
    streams,
)

from wingspan.models.tokenizer import END_ID

DOCUMENTS = [Document(kind, f"{kind}-{i}", f"{kind} {i} " * 20) for kind in SHARES for i in range(4)]


def test_held_out_files_are_few_and_their_docstrings_are_held_out_with_them():
    held_out, everything = standard_library(held_out=True), standard_library(held_out=False)
    names = {document.name for document in held_out}
    assert not names & {document.name for document in everything}
    assert 0.02 < len(names) / len({document.name for document in everything}) < 0.15
    assert {document.kind for document in held_out} == set(SHARES)


def test_streams_are_the_bytes_of_each_kind_with_an_end_after_each_document():
    parts = streams([*DOCUMENTS, Document("code", "empty", "")])
    assert parts.keys() == SHARES.keys()
    text = bytes(int(i) for i in parts["table"] if i != END_ID).decode()
    assert text == "".join(d.text for d in DOCUMENTS if d.kind == "table")
    assert [int((part == END_ID).sum()) for part in parts.values()] == [4] * len(SHARES)


def test_the_fingerprint_follows_the_text():
    assert fingerprint(streams(DOCUMENTS)) == fingerprint(streams(list(DOCUMENTS)))
    assert fingerprint(streams(DOCUMENTS)) != fingerprint(streams(DOCUMENTS[1:]))


def test_batches_follow_the_seed_and_the_shares():
    text = {kind: torch.full((500,), i, dtype=torch.int16) for i, kind in enumerate(SHARES)}
    batch, again = (sample_batch(text, 2000, 4, torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(batch, again)
    shares = torch.bincount(batch[:, 0], minlength=len(SHARES)) / len(batch)
    torch.testing.assert_close(shares, torch.tensor(list(SHARES.values())), atol=0.04, rtol=0)


def test_fixed_batch_spans_the_stream():
    batch = fixed_batch(torch.arange(100, dtype=torch.int16), 3, 10)
    assert batch.tolist() == [list(range(0, 10)), list(range(45, 55)), list(range(90, 100))]
