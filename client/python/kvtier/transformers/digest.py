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


# Elements of each tensor that are looked at to see whether it was written.
_PROBES = 256


def _probe(tensor) -> bytes:
    flat = tensor.detach().reshape(-1)
    sample = flat[:: max(1, flat.numel() // _PROBES)].to("cpu").contiguous()
    return sample.view(torch.uint8).numpy().tobytes()


def versions(model):
    """Changes whenever a weight is replaced or written in place: torch counts writes, but
    not those through .data, so some elements of each tensor are compared too. A write
    through .data to a few elements can be missed."""
    return tuple(
        (tensor.data_ptr(), tensor._version, _probe(tensor)) for _, tensor in _tensors(model)
    )


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
