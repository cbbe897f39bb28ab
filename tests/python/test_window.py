"""Goal: a window's answer is attended to exactly as it came. Method: a stand-in for the
client answers in parts whose heads have different counts, with the rest as one more part."""

import types

import numpy as np
import pytest
import torch

import kvtier
from kvtier.transformers import window
from kvtier.v1 import worker_pb2

SPEC = kvtier.LayerSpec(query_heads=4, kv_heads=2, key_dim=16, value_dim=16)
WIDTH, TOKENS, SCALE = 32, 5, 0.3


class Client:
    """Answers with the parts it was given, and keeps what it was asked."""

    def __init__(self, parts):
        self.parts = parts

    def next_step(self):
        return 7

    def retrieve(self, step, items):
        self.step, (self.item,) = step, items
        yield from self.parts


def part(rows, rest=None):
    """rows: [kv_head] of [n, K | V]; rest: output [t, H, Dv], lse [t, H]."""
    result = worker_pb2.RetrieveResult(
        added_counts=np.array([len(of_head) for of_head in rows], np.uint32).tobytes(),
        rows=torch.cat(rows).numpy().tobytes(),
        last_part=rest is not None,
    )
    if rest:
        result.rest_output, result.rest_lse = (x.numpy().tobytes() for x in rest)
    return result


@pytest.mark.parametrize("counts", [[(6, 6)], [(9, 2), (0, 7)], [(0, 3)]])
@pytest.mark.parametrize("with_rest", [True, False])
def test_parts_and_rest_are_one_softmax(counts, with_rest):
    query = torch.randn(1, 4, TOKENS, 16)
    parts = [[torch.randn(count, WIDTH) for count in of_part] for of_part in counts]
    output, lse = torch.randn(TOKENS, 4, 16), torch.randn(TOKENS, 4)
    lse[2] = float("-inf")  # nothing was left of this query
    rest = (output, lse if with_rest else torch.full_like(lse, float("-inf")))
    answer = [part(rows) for rows in parts[:-1]] + [part(parts[-1], rest)]
    layer = types.SimpleNamespace(spec=SPEC, index=3, width=WIDTH, kv=torch.empty(0))
    seen = []
    client = Client(answer)
    found, found_lse = window.attend_selected(
        client, 11, layer, query, SCALE, (4, 100), seen.append
    )
    assert seen == answer
    for head in range(4):
        rows = torch.cat([of_part[head // 2] for of_part in parts])
        logits = query[0, head] @ rows[:, :16].T * SCALE
        logits = torch.cat([logits, rest[1][:, head, None]], 1)
        total = logits.logsumexp(1)
        assert torch.allclose(found_lse[0, head], total, atol=1e-5)
        shares = (logits - total[:, None]).exp().nan_to_num()  # nothing at all: 0
        wanted = shares[:, :-1] @ rows[:, 16:] + shares[:, -1:] * rest[0][:, head]
        assert torch.allclose(found[0, head], wanted, atol=1e-5)
    item = client.item
    assert (item.sequence_id, item.layer, item.query_count) == (11, 3, TOKENS)
    assert (item.candidates_begin, item.candidates_end, item.held_step) == (4, 100, 0)
    sent = torch.frombuffer(item.query, dtype=torch.float32).view(TOKENS, 4, 16)
    assert torch.equal(sent, query[0].transpose(0, 1))


def test_nothing_read_and_nothing_estimated_has_no_share():
    layer = types.SimpleNamespace(spec=SPEC, index=0, width=WIDTH, kv=torch.empty(0))
    client = Client([worker_pb2.RetrieveResult(last_part=True)])
    output, lse = window.attend_selected(
        client, 1, layer, torch.randn(1, 4, TOKENS, 16), SCALE, (0, 9), lambda result: None
    )
    assert torch.equal(output, torch.zeros(1, 4, TOKENS, 16))
    assert (lse == float("-inf")).all()
