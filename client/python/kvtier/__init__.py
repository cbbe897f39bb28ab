"""kvtier: the KV cache of language models, kept in a daemon (kvtierd).

`Client` speaks to the daemon in numpy arrays. `kvtier.transformers.attach` puts the
KV cache of a Hugging Face model there.
"""

from kvtier.client import Client
from kvtier.errors import (
    DataLossError,
    DeadlineExceededError,
    FailedPreconditionError,
    InternalError,
    InvalidArgumentError,
    KvtierError,
    NotFoundError,
    PermissionDeniedError,
    ResourceExhaustedError,
    UnavailableError,
    UnimplementedError,
)
from kvtier.sequence import Selection, Sequence
from kvtier.spec import LayerSpec, Model, ModelSpec

__all__ = [
    "Client",
    "DataLossError",
    "DeadlineExceededError",
    "FailedPreconditionError",
    "InternalError",
    "InvalidArgumentError",
    "KvtierError",
    "LayerSpec",
    "Model",
    "ModelSpec",
    "NotFoundError",
    "PermissionDeniedError",
    "ResourceExhaustedError",
    "Selection",
    "Sequence",
    "UnavailableError",
    "UnimplementedError",
]
