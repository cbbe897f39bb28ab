"""What a model's KV cache looks like; see proto/kvtier/v1/model.proto."""

import dataclasses

import numpy as np

from kvtier.v1 import model_pb2

# bf16 has no numpy dtype: its arrays are the bits.
_DTYPES = {
    "f32": (model_pb2.DTYPE_F32, np.dtype(np.float32)),
    "f16": (model_pb2.DTYPE_F16, np.dtype(np.float16)),
    "bf16": (model_pb2.DTYPE_BF16, np.dtype(np.uint16)),
}
_ABSTRACTS = {
    "sketch": model_pb2.ABSTRACT_SKETCH,
    "bounds": model_pb2.ABSTRACT_BOUNDS,
}


@dataclasses.dataclass(frozen=True)
class LayerSpec:
    query_heads: int
    kv_heads: int
    key_dim: int
    value_dim: int
    softmax_scale: float = 0.0  # 0: 1 / sqrt(key_dim)


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    layers: tuple[LayerSpec, ...]
    dtype: str  # "f32", "f16" or "bf16"
    salt: bytes = b""
    label: str = ""
    # What is kept of each page to select by: "sketch", "bounds"; empty: both.
    abstracts: tuple[str, ...] = ()

    def to_proto(self) -> model_pb2.ModelSpec:
        if self.dtype not in _DTYPES:
            raise ValueError(f"dtype {self.dtype!r}: use one of {', '.join(_DTYPES)}")
        for abstract in self.abstracts:
            if abstract not in _ABSTRACTS:
                raise ValueError(f"abstract {abstract!r}: use some of {', '.join(_ABSTRACTS)}")
        return model_pb2.ModelSpec(
            label=self.label,
            layers=[model_pb2.LayerSpec(**dataclasses.asdict(layer)) for layer in self.layers],
            dtype=_DTYPES[self.dtype][0],
            salt=self.salt,
            abstracts=[_ABSTRACTS[abstract] for abstract in self.abstracts],
        )


@dataclasses.dataclass(frozen=True)
class Model:
    """A registered model."""

    spec: ModelSpec
    digest: bytes

    @property
    def numpy_dtype(self) -> np.dtype:
        return _DTYPES[self.spec.dtype][1]

    def row_elements(self, layer: int) -> int:
        return self.spec.layers[layer].key_dim + self.spec.layers[layer].value_dim

    def token_bytes(self, layer: int) -> int:
        """One token's rows at one layer, all kv heads."""
        elements = self.spec.layers[layer].kv_heads * self.row_elements(layer)
        return elements * self.numpy_dtype.itemsize
