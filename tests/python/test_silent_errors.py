"""Goal: what was computed by sparse attention is never taken for exact, a selection is
counted once, another model's KV is not served. Method: the ways in which each of these
went wrong, against plain transformers."""

import torch

import kvtier.transformers
from models import prompt, tiny


def logits_through_full(model, ids, socket):
    with kvtier.transformers.attach(model, system="full", socket=socket) as kv:
        cache = kv.cache(ids)
        with torch.no_grad():
            return model(input_ids=ids[:, cache.length :], past_key_values=cache).logits[:, -1]


def sparse_answer(model, kv, ids, tokens):
    cache = kv.cache(ids)
    out = model.generate(
        ids, past_key_values=cache, max_new_tokens=tokens, min_new_tokens=tokens,
        do_sample=False, pad_token_id=0,
    )  # fmt: skip
    cache.close()
    return out


def test_a_cropped_cache_does_not_seal_sparse_rows_as_exact(socket):
    model, ids = tiny(), prompt(100, seed=501)["input_ids"]
    with kvtier.transformers.attach(model, "window", recent=16, sinks=0, socket=socket) as kv:
        text = sparse_answer(model, kv, ids, 160)
        cache = kv.cache(text)
        assert cache.rows[0].sequence.exact_tokens < cache.rows[0].sequence.cached_tokens
        cache.crop(104 - cache.get_seq_length())
        with torch.no_grad():
            model(input_ids=text[:, 104:], past_key_values=cache)
        cache.close()
    with torch.no_grad():
        plain = model(input_ids=text).logits[:, -1]
    assert (logits_through_full(model, text, socket) - plain).abs().max() < 1e-3


def test_a_batch_cut_to_its_shortest_prefix_does_not_either(socket):
    model = tiny()
    ids, other = (prompt(n, seed=510 + n)["input_ids"] for n in (100, 220))
    with kvtier.transformers.attach(model, "window", recent=16, sinks=0, socket=socket) as kv:
        text = sparse_answer(model, kv, ids, 160)
        sparse_answer(model, kv, other[:, :70], 1)
        batch = torch.zeros(2, 260, dtype=torch.long)
        mask = torch.ones_like(batch)
        batch[0, 40:], batch[1], mask[0, :40] = other, text, 0
        cache = kv.cache(batch, mask)
        with torch.no_grad():
            rest = batch[:, cache.get_seq_length() :]
            model(input_ids=rest, attention_mask=mask, past_key_values=cache)
        cache.close()
    with torch.no_grad():
        plain = model(input_ids=text).logits[:, -1]
    assert (logits_through_full(model, text, socket) - plain).abs().max() < 1e-3


def test_another_window_does_not_find_what_a_smaller_one_computed(socket):
    model, ids = tiny(), prompt(100, seed=540)["input_ids"]
    attach = kvtier.transformers.attach
    with attach(model, "window", recent=8, sinks=0, socket=socket) as kv:
        text = sparse_answer(model, kv, ids, 160)
        assert kv.cache(text).cached_tokens == [256]
    for options in ({"recent": 1000, "sinks": 0}, {"recent": 8, "sinks": 4}, {"budget": 992}):
        with attach(model, "window", socket=socket, **options) as kv:
            assert kv.cache(text).cached_tokens == [64]


def test_a_selection_is_not_counted_beside_the_same_tokens_in_the_ring(socket):
    model, ids = tiny(), prompt(80, seed=520)["input_ids"]
    with kvtier.transformers.attach(model, "kvtier", budget=1000, socket=socket) as kv:
        cache = kv.cache()
        with torch.no_grad():
            model(input_ids=ids[:, :71], past_key_values=cache)
            model(input_ids=ids[:, 71:72], past_key_values=cache)
            cache.crop(-6)
            ours = model(input_ids=ids[:, 66:67], past_key_values=cache).logits[:, -1]
        cache.close()
    with torch.no_grad():
        plain = model(input_ids=ids[:, :67]).logits[:, -1]
    assert (ours - plain).abs().max() < 1e-3


def test_weights_written_through_data_are_another_model(socket):
    model, ids = tiny(), prompt(200, seed=530)["input_ids"]
    with kvtier.transformers.attach(model, system="full", socket=socket) as kv:
        with torch.no_grad():
            model(input_ids=ids, past_key_values=kv.cache(ids))
        model.model.layers[0].self_attn.k_proj.weight.data += 0.5
        assert kv.cache(ids).cached_tokens == [0]
