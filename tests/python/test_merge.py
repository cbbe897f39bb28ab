"""Goal: attention in parts, merged, is attention over all. Method: random tensors, the
torch kernel and the plain operations beside one softmax over everything."""

import pytest
import torch

from kvtier.transformers.merge import attend, attend_one, attend_plain, merge


def reference(query, key, value, scale, causal):
    groups = query.shape[1] // key.shape[1]
    key, value = (part.repeat_interleave(groups, 1) for part in (key, value))
    logits = query @ key.transpose(-1, -2) * scale
    if causal:
        future = torch.ones(logits.shape[-2:], dtype=torch.bool).triu(1)
        logits = logits.masked_fill(future, float("-inf"))
    return logits.softmax(-1) @ value, logits.logsumexp(-1)


def random(*shape):
    return torch.randn(*shape)


@pytest.mark.parametrize("function", [attend, attend_plain])
@pytest.mark.parametrize("tokens, past", [(1, 300), (7, 5), (300, 300), (513, 64)])
def test_one_part(function, tokens, past):
    query, key, value = random(1, 6, tokens, 16), random(1, 2, past, 16), random(1, 2, past, 16)
    causals = (False, True) if tokens == past else (False,)
    for causal in causals:
        wanted = reference(query, key, value, 0.3, causal)
        for got, want in zip(function(query, key, value, 0.3, causal), wanted):
            assert torch.allclose(got, want, atol=1e-5)


def test_value_dim_may_differ():
    query, key, value = random(1, 4, 9, 16), random(1, 2, 30, 16), random(1, 2, 30, 8)
    got = attend(query, key, value, 0.3)
    assert torch.allclose(got[0], reference(query, key, value, 0.3, False)[0], atol=1e-5)


def test_parts_merge_to_the_whole():
    query, key, value = random(1, 6, 5, 16), random(1, 2, 90, 16), random(1, 2, 90, 16)
    merged = None
    for begin, end in ((0, 1), (1, 40), (40, 90)):
        part = attend(query, key[:, :, begin:end], value[:, :, begin:end], 0.3)
        merged = merge(merged, part)
    assert merge(merged, None) is merged
    for got, want in zip(merged, reference(query, key, value, 0.3, False)):
        assert torch.allclose(got, want, atol=1e-5)


def test_one_query_over_rows():
    query, rows = random(2, 3, 16), random(2, 40, 32)
    got, lse = attend_one(query * 0.3, rows, 16)
    as_batch = query.reshape(1, 6, 1, 16), rows[None, ..., :16], rows[None, ..., 16:]
    want, want_lse = reference(*as_batch, 0.3, False)
    assert torch.allclose(got.reshape(1, 6, 1, 16), want, atol=1e-5)
    assert torch.allclose(lse.reshape(1, 6, 1), want_lse, atol=1e-5)


def test_what_is_empty_in_both_parts_stays_empty():
    output = torch.zeros(2, 8)
    lse = torch.tensor([float("-inf"), 0.5])
    merged, total = merge((output, lse), (output, torch.tensor([float("-inf")] * 2)))
    assert torch.equal(merged, output) and torch.equal(total, lse)
