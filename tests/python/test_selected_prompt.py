"""Goal: with prompt="selected" a prompt behind a cached prefix is computed with what the
system selects, and nothing else changes. Method: tiny models; `window` against plain
transformers under a mask, systems whose budget lacks one token against exact prompts,
counts of what was read, and which chunks other workers find."""

import itertools

import pytest
import torch
from transformers import DynamicCache

import kvtier.transformers
from kvtier.transformers import window
from models import greedy, padded, prompt, tiny

SEEDS = itertools.count(300)
PREFIX, END = 320, 420  # of every document here: cached tokens, and all of them


@pytest.fixture(scope="module")
def llama():
    return tiny()


def attach(model, socket, system="kvtier", budget=24, **options):
    options = {"prompt": "selected", "dense_layers": 0, "abstracts": ("sketch", "bounds"), **options}
    if system in ("full", "window"):
        del options["dense_layers"]
    return kvtier.transformers.attach(model, system, budget, socket=socket, **options)


def document(model, socket, tokens=END, stored=PREFIX):
    """A new prompt whose first tokens are stored, exactly computed."""
    inputs = prompt(tokens, seed=next(SEEDS))
    store(model, socket, inputs, stored)
    return inputs


def store(model, socket, inputs, tokens):
    first = {key: value[:, :tokens] for key, value in inputs.items()}
    with attach(model, socket, "full", 0) as kv:
        model(**first, past_key_values=kv.cache(**first))


def distance(logits, others):
    """Mean difference of the probabilities; that of a window alone is near 0.01."""
    return (logits.softmax(-1) - others.softmax(-1)).abs().mean().item()


def last_logits(model, kv, inputs, cached, pieces=None):
    """Of the uncached end of the prompt, and the cache."""
    cache = kv.cache(**inputs)
    assert cache.cached_tokens == cached
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    start = cache.get_seq_length()
    logits = []
    for piece in ids[:, start:].split(pieces or ids.shape[1], 1):
        start += piece.shape[1]
        out = model(piece, attention_mask=mask[:, :start], past_key_values=cache)
        logits.append(out.logits)
    return torch.cat(logits, 1), cache


def expect_found(model, socket, ids, tokens, **options):
    with attach(model, socket, **options) as kv:
        assert kv.cache(ids).cached_tokens == [tokens]


@pytest.mark.parametrize("system", ["kvtier", "quest", "oracle", "full"])
@pytest.mark.parametrize("pieces", [None, 30])
def test_a_budget_of_everything_is_exact(llama, socket, system, pieces):
    inputs = document(llama, socket)
    plain = llama(**inputs).logits[:, PREFIX:]
    with attach(llama, socket, system, 1000) as kv:
        logits, cache = last_logits(llama, kv, inputs, [PREFIX], pieces)
        assert not cache.rows[0].is_approximate(END)
    assert (logits - plain).abs().max() < 1e-4
    expect_found(llama, socket, inputs["input_ids"], 384, system="full", prompt="exact")


@pytest.mark.parametrize("system", ["kvtier", "oracle"])
def test_a_budget_of_all_but_one_token_is_nearly_exact(llama, socket, system):
    inputs = document(llama, socket)
    plain = llama(**inputs).logits[:, PREFIX:]
    candidates = PREFIX - 64 - 4
    with attach(llama, socket, system, candidates - 1) as kv:
        logits, cache = last_logits(llama, kv, inputs, [PREFIX])
        assert cache.rows[0].is_approximate(END)
        assert kv.stats.retrievals == 3 * 2  # layers, windows
        assert kv.stats.tokens_selected == 3 * 2 * 2 * (candidates - 1)
    assert 0 < distance(logits, plain) < 5e-4


def test_a_windows_prompt_is_plain_attention_under_its_mask(llama, socket):
    inputs = document(llama, socket)
    ids, recent = inputs["input_ids"], 30
    plain = DynamicCache()
    llama(ids[:, :PREFIX], past_key_values=plain)
    seen = torch.ones(END - PREFIX, END, dtype=torch.bool).tril(PREFIX)
    seen[:, 4 : PREFIX - recent] = False
    mask = torch.zeros(seen.shape).masked_fill(~seen, float("-inf"))[None, None]
    wanted = llama(ids[:, PREFIX:], attention_mask=mask, past_key_values=plain).logits
    with attach(llama, socket, "window", 0, recent=recent) as kv:
        cache = kv.cache(ids)
        before = kv.stats.as_dict()
        logits = llama(ids[:, PREFIX:], past_key_values=cache).logits
        after = kv.stats.as_dict()
    assert (logits - wanted).abs().max() < 1e-4
    assert after["read_bytes"] == before["read_bytes"] and after["retrievals"] == 0


def test_selections_lose_less_than_the_window(llama, socket):
    inputs = document(llama, socket)
    plain = llama(**inputs).logits[:, PREFIX:]
    errors = {}
    for system in ("kvtier", "quest", "oracle", "window"):
        with attach(llama, socket, system, 0 if system == "window" else 64, recent=16) as kv:
            logits, _ = last_logits(llama, kv, inputs, [PREFIX])
        assert torch.isfinite(logits).all()
        errors[system] = distance(logits, plain)
    assert errors["kvtier"] < 0.7 * errors["window"]
    assert errors["oracle"] < 0.9 * errors["window"]


def test_a_restarted_daemon_reads_what_is_selected(llama, start_daemon, tmp_path):
    disk = f'[disk]\ndirectory = "{tmp_path}/kv"\ncapacity = "256MiB"\n'
    daemon = start_daemon(extra=disk)
    stored, question = 4096, 20
    inputs = prompt(stored + question, seed=next(SEEDS))
    with attach(llama, daemon.socket(), "full", 0) as kv:
        cache = kv.cache(**inputs)
        llama(inputs["input_ids"], past_key_values=cache)
        cache.rows[0].sequence.seal(durable=True)
    daemon.kill()
    daemon.start()
    kv_bytes = 3 * 2 * stored * 2 * 16 * 4  # layers, heads, tokens, K and V, dim, f32
    with attach(llama, daemon.socket(), budget=8) as kv:
        cache = kv.cache(**inputs)
        opening = kv.stats.read_bytes
        assert cache.cached_tokens == [stored] and opening < kv_bytes / 20
        llama(inputs["input_ids"][:, stored:], past_key_values=cache)
        assert kv.stats.read_bytes == opening
        assert 0 < kv.stats.disk_bytes < kv_bytes / 4
        assert kv.stats.host_bytes < kv_bytes / 100


def test_dense_layers_are_sent_once_to_all_windows_but_the_first(llama, socket):
    inputs = document(llama, socket, tokens=PREFIX + 150)
    with attach(llama, socket, dense_layers=2) as kv:
        cache = kv.cache(**inputs)
        before = kv.stats.read_bytes
        llama(inputs["input_ids"][:, PREFIX:], past_key_values=cache)
        candidate_bytes = (PREFIX - 64 - 4) * 2 * 2 * 16 * 4  # heads, K and V, dim, f32
        assert kv.stats.read_bytes - before == 2 * candidate_bytes
        assert kv.stats.retrievals == 2 + 3
        assert [layer.dense for layer in cache.layers] == [True, True, False]


def test_dense_layers_are_exact(llama, socket, monkeypatch):
    monkeypatch.setattr(window, "WINDOW_TOKENS", 40)
    one_layer = tiny(num_hidden_layers=1)
    inputs = document(one_layer, socket)
    plain = one_layer(**inputs).logits[:, PREFIX:]
    # "kvtier" has two dense layers unless it is told otherwise; the worker isn't.
    with attach(one_layer, socket, dense_layers=None) as kv:
        logits, _ = last_logits(one_layer, kv, inputs, [PREFIX])
        assert kv.stats.retrievals == 1
    assert (logits - plain).abs().max() < 1e-4


def test_what_selections_computed_is_found_by_those_who_attach_alike(llama, socket):
    inputs = document(llama, socket)
    with attach(llama, socket) as kv:
        last_logits(llama, kv, inputs, [PREFIX])
    ids = inputs["input_ids"]
    expect_found(llama, socket, ids, 384)
    expect_found(llama, socket, ids, PREFIX, prompt="exact")
    expect_found(llama, socket, ids, PREFIX, budget=25)
    expect_found(llama, socket, ids, PREFIX, system="oracle")
    expect_found(llama, socket, ids, PREFIX, system="full")
    with attach(llama, socket) as kv:
        cache = kv.cache(**inputs)
        assert cache.rows[0].is_approximate(384) and not cache.rows[0].is_approximate(PREFIX)


def test_exact_prompts_go_on_as_before(llama, socket):
    inputs = document(llama, socket)
    plain = llama(**inputs).logits[:, PREFIX:]
    with attach(llama, socket, prompt="exact") as kv:
        logits, _ = last_logits(llama, kv, inputs, [PREFIX])
        assert kv.stats.retrievals == 0
    assert (logits - plain).abs().max() < 1e-4
    expect_found(llama, socket, inputs["input_ids"], 384, system="full", prompt="exact")


@pytest.mark.parametrize("told", [True, False])
def test_a_prompt_without_a_cached_prefix_is_exact(llama, socket, told):
    inputs = prompt(END, seed=next(SEEDS))
    ids = inputs["input_ids"]
    with attach(llama, socket) as kv:
        cache = kv.cache(**inputs) if told else kv.cache()
        pieces = ids.split(70, 1)
        logits = torch.cat([llama(piece, past_key_values=cache).logits for piece in pieces], 1)
        assert kv.stats.retrievals == 0
    assert (logits - llama(ids).logits).abs().max() < 1e-4
    expect_found(llama, socket, ids, 384, system="full", prompt="exact")


def test_a_padded_batch_is_as_its_rows_are_alone(llama, socket):
    long, short = (document(llama, socket, END - 64 * i, PREFIX - 64 * i) for i in (0, 1))
    alone = []
    for inputs, cached in ((long, PREFIX), (short, PREFIX - 64)):
        with attach(llama, socket, "oracle") as kv:
            # 63 tokens: no chunk is completed that the batch would find.
            inputs = {key: value[:, : cached + 63] for key, value in inputs.items()}
            alone.append((inputs, last_logits(llama, kv, inputs, [cached])[0]))
    batch = padded(alone[0][0], alone[1][0])
    with attach(llama, socket, "oracle") as kv:
        logits, cache = last_logits(llama, kv, batch, [PREFIX, PREFIX - 64])
        assert all(row.is_approximate(PREFIX + 1) for row in cache.rows)
    for row, (_, wanted) in enumerate(alone):
        assert (logits[row] - wanted[0]).abs().max() < 1e-3


@pytest.mark.parametrize("pieces", [None, 50, 1])
def test_a_row_of_a_batch_without_a_cached_prefix_is_exact(llama, socket, pieces):
    long, short = document(llama, socket), prompt(320, seed=next(SEEDS))
    with attach(llama, socket) as kv:
        batch = padded(long, short)
        logits, cache = last_logits(llama, kv, batch, [100, 0], pieces)
        # The long row has more than the budget behind it but where sinks and recent hold it.
        assert [row.is_approximate(END) for row in cache.rows] == [True, False]
    plain = llama(short["input_ids"]).logits
    assert (logits[1, -320:] - plain[0]).abs().max() < 1e-4


@pytest.mark.parametrize("pieces", [50, 1])
def test_pieces_of_the_end_select_too(llama, socket, pieces):
    inputs = document(llama, socket)
    plain = llama(**inputs).logits[:, PREFIX:]
    with attach(llama, socket, "kvtier", PREFIX - 64 - 4 - 1) as kv:
        logits, cache = last_logits(llama, kv, inputs, [PREFIX], pieces)
        assert cache.rows[0].is_approximate(PREFIX + 1) and kv.stats.retrievals > 0
    assert 0 < distance(logits, plain) < 2e-3


def test_a_last_token_alone_is_a_decode_step(llama, socket):
    inputs = document(llama, socket, tokens=PREFIX + 1)
    with attach(llama, socket, "oracle", 64) as kv:
        logits, cache = last_logits(llama, kv, inputs, [PREFIX])
        assert all(layer.held[0] for layer in cache.layers)
    with attach(llama, socket, "oracle", 64) as kv:
        cache = kv.cache()
        ids = inputs["input_ids"]
        llama(ids[:, :PREFIX], past_key_values=cache)
        step = llama(ids[:, PREFIX:], past_key_values=cache).logits
    assert (logits - step).abs().max() < 1e-4


def test_a_later_turn_selects_and_the_first_prompt_does_not(llama, socket):
    first, more = prompt(END, seed=next(SEEDS)), prompt(30, seed=next(SEEDS))["input_ids"]
    with attach(llama, socket) as kv:
        cache = kv.cache(**first)
        logits = llama(first["input_ids"], past_key_values=cache).logits
        assert (logits - llama(first["input_ids"]).logits).abs().max() < 1e-4
        assert not cache.rows[0].is_approximate(END) and kv.stats.retrievals == 0
        before = kv.stats.read_bytes
        assert torch.isfinite(llama(more, past_key_values=cache).logits).all()
        assert cache.rows[0].is_approximate(END + 1) and kv.stats.retrievals == 3
        assert kv.stats.read_bytes == before


def test_the_whole_prompt_again_is_exact(llama, socket):
    inputs = document(llama, socket)
    with attach(llama, socket) as kv:
        cache = kv.cache(**inputs)
        assert cache.get_seq_length() == PREFIX
        logits = llama(**inputs, past_key_values=cache).logits
        assert kv.stats.retrievals == 0 and not cache.rows[0].is_approximate(END)
    assert (logits - llama(**inputs).logits).abs().max() < 1e-4


@pytest.mark.parametrize("removed", [20, 90, 150])
def test_tokens_taken_back_are_computed_again(llama, socket, removed):
    inputs = document(llama, socket)
    ids = inputs["input_ids"]
    with attach(llama, socket, "oracle", 160) as kv:
        once, cache = last_logits(llama, kv, inputs, [PREFIX])
        cache.crop(-removed)
        row = cache.rows[0]
        assert row.is_approximate(END - removed) == (END - removed > PREFIX)
        again = llama(ids[:, END - removed :], past_key_values=cache).logits
        assert row.is_approximate(END) and torch.isfinite(again).all()
    # Other windows, so other selections: near, not equal.
    count = min(removed, END - PREFIX)
    assert distance(once[:, -count:], again[:, -count:]) < 5e-3


@pytest.mark.parametrize(
    "options",
    [
        {"num_beams": 3},
        {"num_return_sequences": 3, "do_sample": True},
        {"prompt_lookup_num_tokens": 4},
        {"prefill_chunk_size": 30},
    ],
    ids=str,
)
def test_generate_goes_on_from_it(llama, socket, monkeypatch, options):
    """The budget is taken for less than everything, which it is not: the tokens are plain's."""
    monkeypatch.setattr(kvtier.transformers.Options, "drops", lambda self, candidates: True)
    inputs = document(llama, socket)
    plain = greedy(llama, inputs, tokens=30, **options)
    with attach(llama, socket, "oracle", 1000) as kv:
        cache = kv.cache(**inputs)
        tokens = greedy(llama, inputs, tokens=30, past_key_values=cache, **options)
        assert kv.stats.retrievals > 0
        assert all(row.is_approximate(END) for row in cache.rows)
    assert torch.equal(tokens, plain)


def test_another_word_for_prompt_is_refused(llama, socket):
    with pytest.raises(ValueError, match="use one of exact, selected"):
        attach(llama, socket, prompt="fast")


def test_a_window_fits_into_a_message():
    small = kvtier.LayerSpec(4, 2, 16, 16)
    large = kvtier.LayerSpec(64, 8, 128, 128)
    assert window.window_tokens(small, 16 << 20) == window.WINDOW_TOKENS
    assert window.window_tokens(large, 1 << 20) * 64 * 129 * 4 <= 1 << 18
    assert window.window_tokens(large, 1 << 10) == 1


def test_small_messages_change_nothing(llama, start_daemon):
    inputs, logits = prompt(1260, seed=next(SEEDS)), []
    for extra in ("", '[limits]\nmessage_max = "256KiB"\n'):
        daemon = start_daemon(extra=extra)
        store(llama, daemon.socket(), inputs, 1216)
        with attach(llama, daemon.socket(), "kvtier", 900) as kv:
            logits.append(last_logits(llama, kv, inputs, [1216])[0])
    assert (logits[0] - logits[1]).abs().max() < 1e-4
