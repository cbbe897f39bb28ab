"""Goal: a model that kvtier can't serve is refused by attach(), with the reason, and
left as it was. Method: tiny configs of each kind."""

import pytest
import torch
import transformers

import kvtier.transformers
from kvtier.transformers import UnsupportedModelError
from models import greedy, prompt, tiny

_SMALL = {
    "vocab_size": 97,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
_HALF_SLIDING = ["full_attention", "sliding_attention"]
REFUSED = {
    "mistral": ({**_SMALL, "sliding_window": 32}, "layer 0 is sliding_attention"),
    "qwen2": (
        {**_SMALL, "use_sliding_window": True, "sliding_window": 32, "layer_types": _HALF_SLIDING},
        "layer 1 is sliding_attention",
    ),
    "gemma2": ({**_SMALL, "head_dim": 16}, "softcapped"),
    "deepseek_v3": (
        {
            **_SMALL,
            "num_key_value_heads": 4,
            "kv_lora_rank": 16,
            "q_lora_rank": 16,
            "qk_rope_head_dim": 8,
            "qk_nope_head_dim": 8,
            "v_head_dim": 16,
            "n_routed_experts": 4,
            "n_group": 1,
            "topk_group": 1,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 32,
        },
        "MLA",
    ),
    "mamba": ({"vocab_size": 97, "hidden_size": 64, "num_hidden_layers": 2}, "recurrent state"),
    "bloom": ({"vocab_size": 97, "hidden_size": 64, "n_layer": 2, "n_head": 4}, "AttentionInterface"),
    "gptj": (
        {"vocab_size": 97, "n_embd": 64, "n_layer": 2, "n_head": 4, "rotary_dim": 8},
        "AttentionInterface",
    ),
    "t5": ({"vocab_size": 97, "d_model": 64, "num_layers": 2, "num_heads": 4}, "encoder-decoder"),
}


def build(kind, fields):
    config = transformers.AutoConfig.for_model(kind, **fields)
    if kind == "t5":
        return transformers.T5ForConditionalGeneration(config)
    return transformers.AutoModelForCausalLM.from_config(config)


@pytest.mark.parametrize("kind", REFUSED)
def test_refused_with_its_reason(kind, socket):
    fields, reason = REFUSED[kind]
    model = build(kind, fields)
    before = model.config._attn_implementation
    with pytest.raises(UnsupportedModelError, match=reason):
        kvtier.transformers.attach(model, socket=socket)
    assert model.config._attn_implementation == before


def test_rope_that_depends_on_the_length_is_refused(socket):
    model = tiny(rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4})
    with pytest.raises(UnsupportedModelError, match="depend on the length"):
        kvtier.transformers.attach(model, socket=socket)


@pytest.fixture(scope="module")
def llama():
    return tiny()


@pytest.fixture
def kv(llama, socket):
    with kvtier.transformers.attach(llama, system="full", socket=socket) as attached:
        yield attached


def test_right_padding_and_holes_are_refused(llama, kv):
    for mask in ([1, 1, 1, 0], [1, 0, 1, 1]):
        inputs = {"input_ids": torch.tensor([[3, 4, 5, 6]]), "attention_mask": torch.tensor([mask])}
        with pytest.raises(ValueError, match="pad on the left"):
            kv.cache(**inputs)
        with pytest.raises(ValueError, match="pad on the left"):
            llama(**inputs, past_key_values=kv.cache())


def test_a_four_dimensional_mask_is_refused(llama, kv):
    mask = torch.ones(1, 1, 4, 4, dtype=torch.bool)
    with pytest.raises(ValueError, match="attention_mask"):
        llama(torch.tensor([[3, 4, 5, 6]]), attention_mask=mask, past_key_values=kv.cache())


def test_embeddings_without_ids_are_refused(llama, kv):
    with pytest.raises(ValueError, match="needs input_ids"):
        llama(inputs_embeds=torch.zeros(1, 4, 64), past_key_values=kv.cache())


def test_autocast_is_refused_with_its_reason(llama, kv):
    with torch.autocast("cpu", torch.bfloat16):
        with pytest.raises(ValueError, match="without autocast"):
            llama(torch.tensor([[3, 4, 5, 6]]), past_key_values=kv.cache())


def test_positions_of_the_callers_own_are_refused(llama, kv):
    ids = torch.tensor([[3, 4, 5, 6]])
    with pytest.raises(ValueError, match="position_ids"):
        llama(ids, position_ids=torch.tensor([[5, 6, 7, 8]]), past_key_values=kv.cache())


def test_training_is_refused(socket):
    model = tiny().requires_grad_(True)
    with kvtier.transformers.attach(model, socket=socket) as kv:
        with pytest.raises(RuntimeError, match="inference"):
            model(torch.tensor([[3, 4, 5, 6]]), past_key_values=kv.cache())


def test_the_cache_without_its_model_is_refused(llama, kv):
    with pytest.raises(RuntimeError, match="call"):
        llama.model(torch.tensor([[3, 4, 5, 6]]), past_key_values=kv.cache())


def test_a_batch_that_does_not_fit_the_cache_is_refused(llama, kv):
    cache = kv.cache(**prompt(20, rows=2))
    with pytest.raises(ValueError, match="2 rows, the batch 3"):
        llama(prompt(20, rows=3)["input_ids"], past_key_values=cache)


def test_attached_model_without_a_cache_is_plain(llama, socket):
    inputs = prompt(100)
    plain = greedy(llama, inputs)
    with kvtier.transformers.attach(llama, socket=socket):
        assert torch.equal(greedy(llama, inputs), plain)
        assert torch.equal(greedy(llama, inputs, use_cache=False), plain)


def test_detach_restores(llama, socket):
    before = llama.config._attn_implementation
    first = kvtier.transformers.attach(llama, socket=socket)
    second = kvtier.transformers.attach(llama, system="full", socket=socket)
    assert llama.config._attn_implementation == "kvtier"
    first.close()
    assert llama.config._attn_implementation == "kvtier"
    second.close()
    assert llama.config._attn_implementation == before
    assert not llama._forward_pre_hooks and not llama._forward_hooks
    with pytest.raises(RuntimeError, match="detached"):
        first.cache()


def test_two_models_do_not_share(socket):
    inputs = prompt(200, seed=5)
    models = [tiny(seed=1), tiny(seed=2)]
    attached = [kvtier.transformers.attach(m, system="full", socket=socket) for m in models]
    try:
        for model, kv in zip(models, attached):
            cache = kv.cache(**inputs)
            assert cache.cached_tokens == [0]
            tokens = greedy(model, inputs, past_key_values=cache)
            assert kv.cache(**inputs).cached_tokens == [192]
            assert torch.equal(tokens, greedy(model, inputs))
    finally:
        for kv in attached:
            kv.close()


def test_changed_weights_are_another_model(socket):
    model, inputs = tiny(seed=3), prompt(200, seed=6)
    with kvtier.transformers.attach(model, system="full", socket=socket) as kv:
        greedy(model, inputs, past_key_values=kv.cache(**inputs))
        assert kv.cache(**inputs).cached_tokens == [192]
        model.lm_head.weight.data.mul_(1.01)
        model.model.layers[0].self_attn.k_proj.weight.mul_(1.01)
        assert kv.cache(**inputs).cached_tokens == [0]
