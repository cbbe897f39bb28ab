"""Goal: selections are asked for, kept and merged rightly. Method: where the budget
reaches all candidates every system equals full attention; below, logits stay finite,
exact scores beat the window, and the delta protocol gives what a fresh ask gives."""

import pytest
import torch

import kvtier.transformers
from models import greedy, padded, prompt, tiny

SYSTEMS = ("kvtier", "quest", "oracle")
STEPS = 40


@pytest.fixture(scope="module")
def llama():
    return tiny()


def step_logits(model, socket, inputs, system, budget, steps=STEPS, forget=False, **options):
    """Logits of decode steps with tokens that are given, not chosen."""
    following = prompt(steps, seed=99)["input_ids"].expand(len(inputs["input_ids"]), -1)
    mask, logits = inputs["attention_mask"], []
    attach = kvtier.transformers.attach
    with attach(model, system=system, budget=budget, socket=socket, **options) as kv:
        cache = kv.cache(**inputs)
        start = cache.get_seq_length()
        model(inputs["input_ids"][:, start:], attention_mask=mask, past_key_values=cache)
        for step in range(steps):
            mask = torch.cat([mask, mask[:, -1:]], 1)
            if forget:
                for layer in cache.layers:
                    layer.held = [None] * len(layer.held)
            token = following[:, step : step + 1]
            out = model(token, attention_mask=mask, past_key_values=cache)
            logits.append(out.logits[:, -1])
        stats = kv.stats.as_dict()
    return torch.stack(logits), stats


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_budget_of_everything_is_full_attention(llama, socket, system):
    inputs = prompt(300, seed=200)
    exact, _ = step_logits(llama, socket, inputs, "full", 0)
    logits, stats = step_logits(llama, socket, inputs, system, 1000)
    assert (logits - exact).abs().max() < 1e-4
    assert stats["retrievals"] == 3 * STEPS


def test_a_windows_budget_is_recent_tokens(llama, socket):
    inputs = prompt(300, seed=205)
    budget, _ = step_logits(llama, socket, inputs, "window", 100, recent=20)
    recent, _ = step_logits(llama, socket, inputs, "window", 0, recent=120)
    less, _ = step_logits(llama, socket, inputs, "window", 0, recent=20)
    assert (budget - recent).abs().max() < 1e-4
    assert (budget - less).abs().max() > 1e-2


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_delta_gives_what_a_fresh_selection_gives(llama, socket, system):
    inputs = padded(prompt(300, seed=210), prompt(200, seed=211))
    delta, with_delta = step_logits(llama, socket, inputs, system, 24, dense_layers=0)
    fresh, without = step_logits(llama, socket, inputs, system, 24, forget=True, dense_layers=0)
    assert torch.isfinite(delta).all()
    # Rows lie in another order: rounding may flip a token at the edge of the budget.
    assert (delta - fresh).abs().max() < 1e-2
    assert with_delta["wire_bytes"] < without["wire_bytes"]
    assert with_delta["tokens_selected"] == without["tokens_selected"] == 2 * 3 * STEPS * 2 * 24


def test_budgets_below_everything_lose_little_and_the_window_more(llama, socket):
    inputs = prompt(300, seed=220)
    exact, _ = step_logits(llama, socket, inputs, "full", 0)

    def error(system, budget):
        logits, stats = step_logits(llama, socket, inputs, system, budget)
        assert torch.isfinite(logits).all()
        return (logits.softmax(-1) - exact.softmax(-1)).abs().mean().item(), stats

    window, stats = error("window", 0)
    assert stats["retrievals"] == 0 and stats["tokens_selected"] == 0
    assert error("oracle", 64)[0] < 0.7 * window
    assert error("kvtier", 64)[0] < 0.7 * window


def test_dense_layers_read_everything(llama, socket):
    inputs = prompt(300, seed=230)
    exact, _ = step_logits(llama, socket, inputs, "full", 0)
    logits, _ = step_logits(llama, socket, inputs, "kvtier", 16, dense_layers=3)
    assert (logits - exact).abs().max() < 1e-4


@pytest.mark.parametrize("sinks, recent", [(0, 1), (4, 16), (7, 100)])
def test_other_sinks_and_windows(llama, socket, sinks, recent):
    inputs = padded(prompt(300, seed=240), prompt(250, seed=241))
    exact, _ = step_logits(llama, socket, inputs, "full", 0, steps=70)
    options = {"sinks": sinks, "recent": recent}
    logits, _ = step_logits(llama, socket, inputs, "full", 0, steps=70, **options)
    assert (logits - exact).abs().max() < 1e-4


def test_what_sparse_attention_computed_is_not_served_as_exact(llama, socket):
    inputs = prompt(300, seed=250)
    with kvtier.transformers.attach(llama, system="oracle", budget=8, socket=socket) as kv:
        tokens = greedy(llama, inputs, tokens=100, past_key_values=kv.cache(**inputs))
        assert kv.cache(tokens).cached_tokens == [384]
    with kvtier.transformers.attach(llama, system="full", socket=socket) as kv:
        assert kv.cache(tokens).cached_tokens == [256]


def test_generate_with_beams_under_a_budget(llama, socket):
    inputs = padded(prompt(300, seed=260), prompt(250, seed=261))
    plain = greedy(llama, inputs, num_beams=3)
    with kvtier.transformers.attach(llama, system="kvtier", budget=1000, socket=socket) as kv:
        cache = kv.cache(**inputs)
        assert torch.equal(greedy(llama, inputs, num_beams=3, past_key_values=cache), plain)
