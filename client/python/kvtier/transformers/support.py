"""Which models are served: decided from the config, refused with layer and kind."""

import torch
from transformers.cache_utils import get_layer_types_and_kwargs

from kvtier.spec import LayerSpec

DTYPES = {torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16"}

# Field of the config (when true or set) -> what it means.
_REFUSED_FIELDS = {
    "kv_lora_rank": "latent attention (MLA)",
    "num_kv_shared_layers": "layers that share another layer's KV",
    "attn_logit_softcapping": "softcapped attention logits",
    "alibi": "ALiBi position biases",
    "add_cross_attention": "cross attention",
    "cross_attention_layers": "cross attention",
    "index_topk": "indexed sparse attention",
}
# These rotate a key depending on how long the sequence will be, so a prefix's KV is
# not a function of the prefix.
_REFUSED_ROPE = ("dynamic", "longrope")


class UnsupportedModelError(ValueError):
    """The model can't keep its KV cache in kvtier."""


def refuse(model, reason: str):
    raise UnsupportedModelError(f"{type(model).__name__} can't use kvtier: {reason}")


def check(model) -> None:
    """Refuses what can be told from the config alone."""
    config = model.config.get_text_config(decoder=True)
    if model.config.is_encoder_decoder:
        refuse(model, "it is an encoder-decoder")
    if getattr(model, "_is_stateful", False):
        refuse(model, "it keeps a recurrent state, not only KV")
    for field, meaning in _REFUSED_FIELDS.items():
        if getattr(config, field, None):
            refuse(model, f"{meaning} (config.{field} = {getattr(config, field)!r})")
    if getattr(config, "is_causal", True) is False:
        refuse(model, "its attention is not causal")
    if "alibi" in str(getattr(config, "position_embedding_type", "")):
        refuse(model, "ALiBi position biases")
    _check_rope(model, config)
    kinds, _ = get_layer_types_and_kwargs(config)
    for layer, kind in enumerate(kinds):
        if kind != "full_attention":
            refuse(model, f"layer {layer} is {kind}; only full_attention is served")
    if model.dtype not in DTYPES:
        refuse(model, f"its dtype is {model.dtype}; f32, f16 and bf16 are served")
    if not model._can_set_attn_implementation():
        refuse(model, "its code does not use transformers' AttentionInterface")


def _check_rope(model, config):
    regimes = getattr(config, "rope_parameters", None) or {}
    if not any(isinstance(value, dict) for value in regimes.values()):
        regimes = {"": regimes}
    for regime in regimes.values():
        kind = (regime or {}).get("rope_type", "default")
        if kind in _REFUSED_ROPE:
            refuse(model, f"with {kind!r} RoPE, keys depend on the length of the sequence")


def check_switched(model) -> None:
    """After set_attn_implementation, which only logs when it can't."""
    for name, module in model.named_modules():
        config = getattr(module, "config", None)
        implementation = getattr(config, "_attn_implementation", "kvtier")
        if implementation != "kvtier":
            refuse(model, f"{name or 'the model'} kept {implementation!r} attention")


def layer_specs(model) -> tuple[LayerSpec, ...]:
    """The shapes are checked again with the first keys that come."""
    config = model.config.get_text_config(decoder=True)
    heads = config.num_attention_heads
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    scales = {
        module.layer_idx: module.scaling
        for module in model.modules()
        if isinstance(getattr(module, "layer_idx", None), int)
        and isinstance(getattr(module, "scaling", None), float)
    }
    return tuple(
        LayerSpec(heads, kv_heads, dim, dim, scales.get(layer, dim**-0.5))
        for layer in range(config.num_hidden_layers)
    )
