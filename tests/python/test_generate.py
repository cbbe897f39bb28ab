"""Goal: with everything read (`full`), generate() gives the same tokens as without
kvtier. Method: tiny random models, plain generate beside generate with a kvtier cache,
each case twice, the second time on the prefix that the first left in the daemon."""

import pytest
import torch

import kvtier.transformers
from models import SERVED, greedy, padded, prompt, tiny


@pytest.fixture(scope="module", params=SERVED)
def model(request):
    return tiny(request.param)


@pytest.fixture(scope="module")
def llama():
    return tiny()


def generate(model, socket, inputs, system="full", **options):
    """The tokens, and how many of each row's prompt were cached."""
    with kvtier.transformers.attach(model, system=system, socket=socket) as kv:
        cache = kv.cache(**inputs)
        return greedy(model, inputs, past_key_values=cache, **options), cache.cached_tokens


def expect_same(model, socket, inputs, cached, **options):
    plain = greedy(model, inputs, **options)
    for expected in ([0] * len(cached), cached):
        tokens, reused = generate(model, socket, inputs, **options)
        assert reused == expected
        assert torch.equal(tokens, plain)


def test_one_row(model, socket):
    expect_same(model, socket, prompt(300, seed=10), [256])


def test_left_padded_batch(model, socket):
    inputs = padded(prompt(300, seed=20), prompt(230, seed=21))
    expect_same(model, socket, inputs, [256, 186])


def test_prompt_in_pieces(model, socket):
    inputs = padded(prompt(300, seed=30), prompt(230, seed=31))
    expect_same(model, socket, inputs, [256, 186], prefill_chunk_size=70)


def test_prompt_one_token_at_a_time(llama, socket):
    inputs = padded(prompt(150, seed=40), prompt(140, seed=41))
    expect_same(llama, socket, inputs, [128, 118], prefill_chunk_size=1, tokens=20)


def test_beams(model, socket):
    expect_same(model, socket, prompt(200, seed=50), [192], num_beams=2)


def test_beams_on_a_padded_batch(llama, socket):
    inputs = padded(prompt(200, seed=60), prompt(130, seed=61))
    expect_same(llama, socket, inputs, [192, 122], num_beams=3)


def test_several_samples_of_one_prompt(llama, socket):
    options = {"do_sample": True, "num_return_sequences": 3}
    expect_same(llama, socket, prompt(200, seed=70), [192], **options)


def test_prompt_lookup_takes_tokens_back(model, socket):
    ids = prompt(300, seed=80)["input_ids"]
    ids = torch.cat([ids, ids[:, :150]], 1)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    expect_same(model, socket, inputs, [448], prompt_lookup_num_tokens=4)


def test_short_prompt_asks_the_daemon_for_nothing(llama, socket):
    inputs = prompt(20, seed=90)
    with kvtier.transformers.attach(llama, system="full", socket=socket) as kv:
        tokens = greedy(llama, inputs, tokens=20, past_key_values=kv.cache(**inputs))
        assert kv.stats.retrievals == 0
    assert torch.equal(tokens, greedy(llama, inputs, tokens=20))


def test_prompt_of_full_chunks_leaves_one_token_uncached(llama, socket):
    expect_same(llama, socket, prompt(128, seed=91), [64])


def test_rows_are_cut_to_the_common_column(llama, socket):
    long, short = prompt(300, seed=92), prompt(230, seed=93)
    generate(llama, socket, long)
    inputs = padded(long, short)
    tokens, reused = generate(llama, socket, inputs)
    # 256 of the long row are cached, but the short row begins at column 70.
    assert reused == [70, 0]
    assert torch.equal(tokens, greedy(llama, inputs))


@pytest.mark.parametrize("same_cache", [True, False])
def test_chat_goes_on(model, socket, same_cache):
    first = prompt(200, seed=100 + same_cache)
    with kvtier.transformers.attach(model, system="full", socket=socket) as kv:
        cache = kv.cache(**first)
        history = greedy(model, first, past_key_values=cache)
        ids = torch.cat([history, prompt(40, seed=102)["input_ids"]], 1)
        second = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        if not same_cache:
            cache = kv.cache(**second)
            assert cache.cached_tokens == [256]  # of 200 + 79, generated ones too
        tokens = greedy(model, second, past_key_values=cache)
    assert torch.equal(tokens, greedy(model, second))


def test_a_cache_that_was_told_nothing(llama, socket):
    inputs = padded(prompt(150, seed=110), prompt(100, seed=111))
    with kvtier.transformers.attach(llama, system="full", socket=socket) as kv:
        for options in ({}, {"prefill_chunk_size": 20}):
            tokens = greedy(llama, inputs, past_key_values=kv.cache(), **options)
            assert torch.equal(tokens, greedy(llama, inputs, **options))


def test_padding_is_guessed_from_the_pad_token_until_the_mask_comes(llama, socket):
    inputs = padded(prompt(150, seed=120), prompt(100, seed=121))
    plain = greedy(llama, inputs)
    with kvtier.transformers.attach(llama, system="full", socket=socket) as kv:
        for cached in ([0, 0], [114, 64]):
            cache = kv.cache(inputs["input_ids"])
            assert cache.cached_tokens == cached
            assert torch.equal(greedy(llama, inputs, past_key_values=cache), plain)


def test_other_tokens_than_the_cache_was_told(llama, socket):
    told, used = prompt(150, seed=130), prompt(150, seed=131)
    with kvtier.transformers.attach(llama, system="full", socket=socket) as kv:
        # Nothing reused: nothing lost.
        tokens = greedy(llama, used, past_key_values=kv.cache(**told))
        assert torch.equal(tokens, greedy(llama, used))
        # The beginning of other tokens was reused.
        with pytest.raises(ValueError, match="differ from what cache"):
            greedy(llama, told, past_key_values=kv.cache(**used))


@pytest.mark.parametrize("removed", [(5,), (70,), (130, 3), (1, 64, 100)])
def test_crop(llama, socket, removed):
    inputs, more = prompt(300, seed=140), prompt(4, seed=141)["input_ids"]
    from transformers import DynamicCache

    with kvtier.transformers.attach(llama, system="full", socket=socket) as kv:
        ours, plain = kv.cache(), DynamicCache()
        for cache in (ours, plain):
            llama(inputs["input_ids"], past_key_values=cache)
        for count in removed:
            ours.crop(-count)
            plain.crop(-count)
            assert ours.get_seq_length() == plain.get_seq_length()
            for ids in (more[:, :3], more[:, 3:]):
                difference = (
                    llama(ids, past_key_values=ours).logits
                    - llama(ids, past_key_values=plain).logits
                )
                assert difference.abs().max() < 1e-4


def test_the_whole_prompt_through_a_cache_that_has_its_beginning(llama, socket):
    inputs = prompt(150, seed=150)
    generate(llama, socket, inputs, tokens=2)
    with kvtier.transformers.attach(llama, system="full", socket=socket) as kv:
        cache = kv.cache(**inputs)
        assert cache.get_seq_length() == 128
        logits = llama(**inputs, past_key_values=cache).logits
    assert (logits - llama(**inputs).logits).abs().max() < 1e-4


def test_batch_operations(llama, socket):
    inputs = padded(prompt(100, seed=160), prompt(90, seed=161))
    with kvtier.transformers.attach(llama, system="full", socket=socket) as kv:
        cache = kv.cache(**inputs)
        llama(**inputs, past_key_values=cache)
        cache.batch_repeat_interleave(2)  # 0 0 1 1
        cache.batch_select_indices(torch.tensor([2, 0]))
        swapped = {key: value[[1, 0]] for key, value in inputs.items()}
        new = prompt(1, seed=162, rows=2)["input_ids"]
        mask = torch.cat([swapped["attention_mask"], torch.ones(2, 1, dtype=torch.long)], 1)
        logits = llama(new, attention_mask=mask, past_key_values=cache).logits[:, -1]
        positions = mask.cumsum(1).sub(1).clamp(min=0)
        ids = torch.cat([swapped["input_ids"], new], 1)
    plain = llama(ids, attention_mask=mask, position_ids=positions).logits[:, -1]
    assert (logits - plain).abs().max() < 1e-4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_as_good_as_plain(socket, dtype):
    inputs, new = prompt(300, seed=170), prompt(1, seed=171)["input_ids"]
    exact = tiny()
    model = tiny().to(dtype)
    ids = torch.cat([inputs["input_ids"], new], 1)
    wanted = exact(ids).logits[:, -1]
    plain_error = (model(ids).logits[:, -1] - wanted).abs().max()
    with kvtier.transformers.attach(model, system="full", socket=socket) as kv:
        cache = kv.cache(**inputs)
        model(inputs["input_ids"], past_key_values=cache)
        error = (model(new, past_key_values=cache).logits[:, -1] - wanted).abs().max()
    assert error < 2 * plain_error
