"""Attention that was covered: on two layers' worth of made-up rows."""

import types

import numpy as np
import pytest
import torch

import kvtier.transformers.forward
import mass

KV_HEADS, GROUP, DIM, TOKENS, BASE = 2, 3, 8, 12, 4


@pytest.fixture
def state():
    generator = torch.Generator().manual_seed(3)
    keys = torch.randn(KV_HEADS, TOKENS, DIM, generator=generator)
    query = torch.randn(1, KV_HEADS * GROUP, 1, DIM, generator=generator)
    layer = types.SimpleNamespace(
        index=0,
        base=BASE,
        selected=0,
        held=[None],
        spec=types.SimpleNamespace(kv_heads=KV_HEADS, key_dim=DIM),
        kv=torch.zeros(1, KV_HEADS, TOKENS, 2 * DIM),
    )
    layer.kv[0, :, :, :DIM] = keys
    forward = types.SimpleNamespace(begin=TOKENS - 1, bias=torch.zeros(1, 1, 1, BASE))
    return keys, query, layer, forward


def look(state, streamed=None):
    keys, query, layer, forward = state
    found = mass.Mass([[keys]])
    found._look(forward, layer, query, 0.5, streamed or {})
    return found.means()[0]


def share(state, tokens):
    keys, query, _, _ = state
    weights = torch.softmax(0.5 * query.view(KV_HEADS, GROUP, DIM) @ keys.transpose(1, 2), -1)
    return float(weights[..., tokens].sum(-1).mean())


def test_what_is_read_is_covered(state):
    assert look(state) == pytest.approx(share(state, list(range(BASE))), abs=1e-5)
    layer = state[2]
    layer.selected = 3
    layer.held = [types.SimpleNamespace(slots=np.zeros((KV_HEADS, 3)))]
    assert look(state) == pytest.approx(share(state, list(range(BASE + 3))), abs=1e-5)


def test_hidden_slots_are_not(state):
    state[3].bias[..., 1] = float("-inf")
    assert look(state) == pytest.approx(share(state, [0, 2, 3]), abs=1e-5)


def test_streamed_rows_are(state):
    keys, query, _, _ = state
    logits = 0.5 * query.view(KV_HEADS, GROUP, DIM) @ keys[:, BASE:].transpose(1, 2)
    assert look(state, {0: (None, logits.logsumexp(-1))}) == pytest.approx(1.0, abs=1e-5)


def test_watches_one_position_in_every(state, monkeypatch):
    _, query, layer, forward = state
    patched = kvtier.transformers.forward.Forward
    monkeypatch.setattr(patched, "decode", lambda *_: "output")
    found = mass.Mass([[state[0]]], every=4)
    with found.watching():
        for forward.begin in range(4, 12):
            assert patched.decode(forward, layer, query, None, None, 0.5) == "output"
    assert len(found.shares[0]) == 2
    assert patched.decode(forward, layer, query, None, None, 0.5) == "output"
    assert len(found.shares[0]) == 2
