"""Hugging Face models whose KV cache is in kvtierd.

    kv = kvtier.transformers.attach(model, system="kvtier", budget=256)
    out = model.generate(**inputs, past_key_values=kv.cache(inputs.input_ids))
"""

from kvtier.transformers.attached import Attached, Options, Stats, attach
from kvtier.transformers.cache import KvtierCache
from kvtier.transformers.support import UnsupportedModelError

__all__ = ["Attached", "KvtierCache", "Options", "Stats", "UnsupportedModelError", "attach"]
