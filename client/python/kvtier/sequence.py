"""A sequence: a token list and its KV, kept by the daemon."""

import dataclasses

import numpy as np

from kvtier import wire
from kvtier.errors import InvalidArgumentError, ResourceExhaustedError
from kvtier.v1 import worker_pb2


@dataclasses.dataclass
class Selection:
    """What a query reads at one layer: per kv head, token indices and their rows."""

    tokens: list  # [kv_head] -> u32 [n]
    rows: list  # [kv_head] -> [n][K | V]
    rest_output: np.ndarray | None  # f32 [query_count][query_heads][value_dim]
    rest_lse: np.ndarray | None  # f32 [query_count][query_heads]
    abstract_bytes: int
    host_bytes: int
    disk_bytes: int


class Sequence:
    """Calls on one sequence run one after another in the daemon; see Client for threads.

    Arrays have the model's numpy dtype (bf16: uint16, the bits); rows are K beside V."""

    def __init__(self, client, model, sequence_id, cached_tokens=0, exact_tokens=0):
        self.client = client
        self.session = client.session
        self.model = model
        self.id = sequence_id
        self.cached_tokens = cached_tokens
        self.exact_tokens = exact_tokens

    def append(self, layer, start, key, value, token_ids=(), approximate=False):
        """key, value: [kv_head][token][dim]. Returns (sealed, complete) tokens."""
        rows = self._rows(layer, key, value)
        key_dim = self.model.spec.layers[layer].key_dim
        self.client.check_session(self.session)
        runs = []
        if len(token_ids):
            runs = [worker_pb2.TokenRun(sequence_id=self.id, start_token=start, token_ids=token_ids)]
        entries = (
            wire.append_entry(self.id, layer, start + begin, part, key_dim, approximate)
            for begin, part in wire.split_rows(rows, self.client.message_bytes_max)
        )
        return self.client.append(entries, runs)[self.id]

    def refill(self, chunk, layers, approximate=False):
        """Writes a hole again, which a FailedPreconditionError ("hole at chunk k") or, the
        first time, a DataLossError told of.

        layers: (key, value) of every layer in order, [kv_head][token][dim] of the chunk's
        tokens. approximate: only where the chunk was. The same again changes nothing."""
        rows = [self._rows(layer, key, value) for layer, (key, value) in enumerate(layers)]
        start = chunk * self.client.chunk_tokens
        request = self._request(worker_pb2.RefillRequest, chunk_index=chunk)
        for layer, of_layer in enumerate(rows):
            key_dim = self.model.spec.layers[layer].key_dim
            entry = wire.append_entry(self.id, layer, start, of_layer, key_dim, approximate)
            request.entries.append(entry)
        if request.ByteSize() > self.client.message_bytes_max:
            raise ResourceExhaustedError(
                f"a chunk's rows take {request.ByteSize()} bytes, more than a message may,"
                f" {self.client.message_bytes_max}: raise the daemon's limits.message_max"
            )
        self.client.call("Refill", request)

    def _rows(self, layer, key, value):
        """[kv_head][token][K | V]."""
        key, value = np.asarray(key), np.asarray(value)
        if key.ndim != 3 or value.ndim != 3 or key.shape[:2] != value.shape[:2]:
            raise ValueError(
                f"key {key.shape} and value {value.shape}: want [kv_head][token][dim] each"
            )
        self._check_shape(layer, key, value)
        if key.dtype != self.model.numpy_dtype or value.dtype != key.dtype:
            raise ValueError(
                f"key {key.dtype} and value {value.dtype}: the model has {self.model.numpy_dtype}"
            )
        return np.concatenate([key, value], axis=2)

    def _check_shape(self, layer, key, value):
        # The daemon is told where rows lie, so it can't tell a wrong shape from strides.
        if not 0 <= layer < len(self.model.spec.layers):
            raise InvalidArgumentError(
                f"layer {layer} is out of range: the model has {len(self.model.spec.layers)}"
            )
        spec = self.model.spec.layers[layer]
        for rows, name, dim in ((key, "key", spec.key_dim), (value, "value", spec.value_dim)):
            if rows.shape[0] != spec.kv_heads or rows.shape[2] != dim:
                raise InvalidArgumentError(
                    f"{name} {rows.shape} at layer {layer}: want"
                    f" ({spec.kv_heads} heads, tokens, {dim})"
                )

    def seal(self, durable=False):
        """Returns (sealed, tail) tokens."""
        response = self.client.call("Seal", self._request(worker_pb2.SealRequest, durable=durable))
        return response.sealed_tokens, response.tail_tokens

    def retrieve(self, layer, query, begin, end, step=None) -> Selection:
        """query: f32 [query_heads][key_dim], or [query_count] of them."""
        query = np.ascontiguousarray(query, dtype=np.float32)
        self.client.check_session(self.session)
        item = worker_pb2.RetrieveItem(
            sequence_id=self.id,
            layer=layer,
            query=query.tobytes(),
            query_count=query.shape[0] if query.ndim == 3 else 1,
            candidates_begin=begin,
            candidates_end=end,
        )
        spec = self.model.spec.layers[layer]
        tokens = [[] for _ in range(spec.kv_heads)]
        rows = [[] for _ in range(spec.kv_heads)]
        for result in self.client.retrieve(step or self.client.next_step(), [item]):
            counts = np.frombuffer(result.added_counts, np.uint32)
            part_tokens = np.frombuffer(result.added, np.uint32)
            part_rows = np.frombuffer(result.rows, self.model.numpy_dtype)
            part_rows = part_rows.reshape(-1, self.model.row_elements(layer))
            ends = np.cumsum(counts)
            for head, (count, last) in enumerate(zip(counts, ends)):
                tokens[head].append(part_tokens[last - count : last])
                rows[head].append(part_rows[last - count : last])
        lse = output = None
        if result.rest_lse:
            lse = np.frombuffer(result.rest_lse, np.float32).reshape(-1, spec.query_heads)
            output = np.frombuffer(result.rest_output, np.float32)
            output = output.reshape(-1, spec.query_heads, spec.value_dim)
        empty = np.empty((0, self.model.row_elements(layer)), self.model.numpy_dtype)
        return Selection(
            tokens=[np.concatenate(parts or [np.empty(0, np.uint32)]) for parts in tokens],
            rows=[np.concatenate(parts or [empty]) for parts in rows],
            rest_output=output,
            rest_lse=lse,
            abstract_bytes=result.cost.abstract_bytes,
            host_bytes=result.cost.host_bytes,
            disk_bytes=result.cost.disk_bytes,
        )

    def read(self, begin, count, layer_begin=0, layer_count=0):
        """Yields (layer, first token, rows [kv_head][token][K | V]), layer by layer.
        The rows are read-only views of the message. layer_count 0: all."""
        request = self._request(
            worker_pb2.ReadRequest,
            layer_begin=layer_begin,
            layer_count=layer_count,
            token_begin=begin,
            token_count=count,
        )
        for part in self.client.read(request):
            spec = self.model.spec.layers[part.layer]
            rows = np.frombuffer(part.rows, self.model.numpy_dtype)
            shape = (spec.kv_heads, part.token_count, self.model.row_elements(part.layer))
            yield part.layer, part.token_begin, rows.reshape(shape)

    def truncate(self, token_count):
        """Returns (sealed, tail) tokens."""
        request = self._request(worker_pb2.TruncateRequest, token_count=token_count)
        response = self.client.call("Truncate", request)
        return response.sealed_tokens, response.tail_tokens

    def fork(self) -> "Sequence":
        response = self.client.call("Fork", self._request(worker_pb2.ForkRequest))
        return Sequence(
            self.client, self.model, response.sequence_id, self.cached_tokens, self.exact_tokens
        )

    def close(self):
        self.client.call("Close", self._request(worker_pb2.CloseRequest))

    @property
    def open(self) -> bool:
        """Whether the session it belongs to is still there."""
        return self.client.alive and self.session is self.client.session

    def _request(self, kind, **fields):
        self.client.check_session(self.session)
        return kind(session_id=self.client.session_id, sequence_id=self.id, **fields)
