"""Goal: a real model generates the same tokens with its KV in the daemon. Method:
SmolLM2-135M-Instruct in f32 reads about 700 tokens of a licence and goes on greedily."""

import pathlib

import pytest
import torch

import kvtier.transformers
from models import greedy, padded, smollm2

TEXT = pathlib.Path("/usr/share/common-licenses/GPL-3")


@pytest.fixture(scope="module")
def model_and_tokenizer():
    torch.set_num_threads(2)
    return smollm2()


def encoded(tokenizer, begin, end):
    ids = tokenizer(TEXT.read_text(), return_tensors="pt")["input_ids"][:, begin:end]
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def test_tokens_equal_plain_generate(model_and_tokenizer, socket):
    model, tokenizer = model_and_tokenizer
    torch.set_num_threads(2)
    inputs = encoded(tokenizer, 0, 700)
    plain = greedy(model, inputs, tokens=40)
    for system, budget in (("full", 0), ("kvtier", 4096)):
        with kvtier.transformers.attach(model, system, budget, socket=socket) as kv:
            cache = kv.cache(**inputs)
            assert cache.cached_tokens == ([0] if system == "full" else [640])
            tokens = greedy(model, inputs, tokens=40, past_key_values=cache)
        assert torch.equal(tokens, plain), system


def test_padded_batch(model_and_tokenizer, socket):
    model, tokenizer = model_and_tokenizer
    torch.set_num_threads(2)
    inputs = padded(encoded(tokenizer, 1000, 1400), encoded(tokenizer, 2000, 2300))
    plain = greedy(model, inputs, tokens=20)
    with kvtier.transformers.attach(model, "full", socket=socket) as kv:
        tokens = greedy(model, inputs, tokens=20, past_key_values=kv.cache(**inputs))
    assert torch.equal(tokens, plain)


def test_a_small_budget_stays_close(model_and_tokenizer, socket):
    model, tokenizer = model_and_tokenizer
    torch.set_num_threads(2)
    inputs = encoded(tokenizer, 3000, 3900)
    ids, scored = inputs["input_ids"], 32
    exact = model(ids).logits[0, -scored - 1 : -1].log_softmax(-1)
    divergence = {}
    for system in ("kvtier", "window"):
        with kvtier.transformers.attach(model, system, 64, socket=socket) as kv:
            cache = kv.cache(ids[:, :-scored])
            begin = cache.get_seq_length()
            logits = [model(ids[:, begin:-scored], past_key_values=cache).logits[0, -1]]
            for step in range(scored, 1, -1):
                token = ids[:, -step : -step + 1]
                logits.append(model(token, past_key_values=cache).logits[0, -1])
        sparse = torch.stack(logits).log_softmax(-1)
        divergence[system] = (exact.exp() * (exact - sparse)).sum(-1).mean().item()
    assert divergence["kvtier"] < 0.05
    assert divergence["kvtier"] < 0.2 * divergence["window"]
