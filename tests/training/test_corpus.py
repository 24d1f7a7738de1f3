import torch
from training.corpus import HELD_OUT_EVERY, SHARES, Document, fingerprint, fixed_batch, sample_batch, streams

from wingspan.models.tokenizer import END_ID

DOCUMENTS = [Document(kind, f"{kind}-{i}", f"{kind} {i} " * 20) for kind in SHARES for i in range(60)]


def test_training_and_held_out_text_share_no_document():
    held_out = [d for d in DOCUMENTS if d.held_out]
    assert 0 < len(held_out) < 3 * len(DOCUMENTS) / HELD_OUT_EVERY
    train, kept = streams(DOCUMENTS, held_out=False), streams(DOCUMENTS, held_out=True)
    for kind in SHARES:
        ends = int((train[kind] == END_ID).sum()) + int((kept[kind] == END_ID).sum())
        assert ends == 60


def test_streams_do_not_depend_on_the_order_of_the_documents():
    forward, backward = streams(DOCUMENTS, held_out=False), streams(DOCUMENTS[::-1], held_out=False)
    assert fingerprint(forward) == fingerprint(backward)
    assert fingerprint(forward) != fingerprint(streams(DOCUMENTS[1:], held_out=False))


def test_batches_follow_the_seed_and_the_shares():
    text = {kind: torch.full((500,), i, dtype=torch.int16) for i, kind in enumerate(SHARES)}
    batch, again = (sample_batch(text, 2000, 4, torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(batch, again)
    shares = torch.bincount(batch[:, 0], minlength=len(SHARES)) / len(batch)
    torch.testing.assert_close(shares, torch.tensor(list(SHARES.values())), atol=0.04, rtol=0)


def test_fixed_batch_spans_the_stream():
    batch = fixed_batch(torch.arange(100, dtype=torch.int16), 3, 10)
    assert batch.tolist() == [list(range(0, 10)), list(range(45, 55)), list(range(90, 100))]
