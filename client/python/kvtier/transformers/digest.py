"""A digest of everything a model's KV depends on besides the tokens.

Two workers share chunks only when it is equal, and wrong sharing would be wrong
attention, so it covers every byte of the weights and the whole config.
"""

import hashlib
import json
import weakref

import torch

# Fields of a config that don't change what the model computes.
_IRRELEVANT = {
    "_name_or_path",
    "architectures",
    "dtype",
    "id2label",
    "label2id",
    "output_attentions",
    "output_hidden_states",
    "return_dict",
    "transformers_version",
    "use_cache",
}
_digests = weakref.WeakKeyDictionary()  # model -> (versions, digest)


def _tensors(model):
    yield from model.named_parameters()
    yield from model.named_buffers()


def versions(model):
    """Changes whenever a weight is replaced or written in place through torch."""
    return tuple((tensor.data_ptr(), tensor._version) for _, tensor in _tensors(model))


def model_digest(model) -> bytes:
    """SHA-256; half a second per GB, kept per model object until its weights change."""
    now = versions(model)
    known = _digests.get(model)
    if known and known[0] == now:
        return known[1]
    digest = hashlib.sha256()
    config = {k: v for k, v in model.config.to_dict().items() if k not in _IRRELEVANT}
    digest.update(json.dumps(config, sort_keys=True, default=str).encode())
    for name, tensor in _tensors(model):
        digest.update(f"\n{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        data = tensor.detach().to("cpu").contiguous().flatten().view(torch.uint8)
        digest.update(data.numpy())
    _digests[model] = (now, digest.digest())
    return digest.digest()
