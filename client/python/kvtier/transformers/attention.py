"""Registers kvtier with transformers' attention and mask interfaces.

`Cache.update` leaves (layer, keys, values) in a thread-local; the attention function of
the same layer, called next by the same module, takes it out. Nothing there means that
the model runs with another cache, or none: then it is ordinary attention.
"""

import threading

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import causal_mask_function, sdpa_mask

NAME = "kvtier"

# Keywords that may come along and mean nothing here.
_HARMLESS = {
    "is_causal",
    "logits_to_keep",
    "num_items_in_batch",
    "output_hidden_states",
    "output_router_logits",
    "position_ids",
    "return_dict",
    "use_cache",
}


class _State(threading.local):
    forward = None  # the Forward under way in this thread
    handed_over = None  # (layer, key, value)


STATE = _State()


def register():
    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, mask)


def hand_over(cache, layer, key, value):
    forward = STATE.forward
    if forward is None or forward.cache is not cache:
        raise RuntimeError(
            "a kvtier cache was used without the model it was made for: call the attached"
            " model itself, not a part of it"
        )
    if STATE.handed_over is not None:
        raise RuntimeError(
            f"layer {STATE.handed_over[0].index} did not attend with kvtier: was another"
            " attention implementation set on the model after attach()?"
        )
    spec = layer.spec
    want = (len(cache.rows), spec.kv_heads, forward.tokens)
    if tuple(key.shape) != (*want, spec.key_dim) or tuple(value.shape) != (*want, spec.value_dim):
        raise ValueError(
            f"layer {layer.index}: keys {tuple(key.shape)} and values {tuple(value.shape)} are"
            f" not [batch, kv_head, token, dim] of {spec}: this model can't use kvtier"
        )
    if key.dtype != layer.kv.dtype or value.dtype != layer.kv.dtype:
        raise ValueError(
            f"layer {layer.index}: keys are {key.dtype} and values {value.dtype}, but the model"
            f" was attached with {layer.kv.dtype}: load it in the dtype that it computes in,"
            " without autocast"
        )
    if key.device != layer.kv.device:
        layer.kv = layer.kv.to(key.device)
    STATE.handed_over = (layer, key, value)


def mask(*args, **kwargs):
    if STATE.forward is None:
        return sdpa_mask(*args, **kwargs)
    if kwargs.get("mask_function", causal_mask_function) is not causal_mask_function:
        raise ValueError("kvtier serves plain causal masks; this model overlays another one")
    return None  # the rows' padding is known to the cache


def attention(module, query, key, value, attention_mask, scaling=None, dropout=0.0, **kwargs):
    handed_over, STATE.handed_over = STATE.handed_over, None
    if handed_over is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **kwargs
        )
    layer, new_key, new_value = handed_over
    _check(module, layer, query, key, new_key, scaling, dropout, kwargs)
    forward = STATE.forward
    with torch.no_grad():
        attend = forward.prompt_attention if forward.is_prompt else forward.decode
        return attend(layer, query, new_key, new_value, layer.spec.softmax_scale), None


def _check(module, layer, query, key, new_key, scaling, dropout, kwargs):
    where = f"layer {layer.index}: "
    if getattr(module, "layer_idx", layer.index) != layer.index or key is not new_key:
        raise ValueError(where + "the module changes keys after the cache: can't use kvtier")
    if query.requires_grad and torch.is_grad_enabled():
        raise RuntimeError("kvtier is for inference: call the model under torch.no_grad()")
    if dropout:
        raise RuntimeError("kvtier is for inference: call model.eval() first")
    if query.shape[1] != layer.spec.query_heads:
        raise ValueError(where + f"{query.shape[1]} query heads are not those of {layer.spec}")
    scale = layer.spec.softmax_scale
    if scaling is not None and abs(scaling - scale) > 1e-6 * scale:
        raise ValueError(where + f"scales logits by {scaling}, kvtier was told {scale}")
    if kwargs.get("is_causal") is False:
        raise ValueError(where + "its attention is not causal")
    for name, argument in kwargs.items():
        if name not in _HARMLESS and argument is not None and argument is not False:
            raise ValueError(where + f"kvtier does not serve the attention argument {name!r}")
