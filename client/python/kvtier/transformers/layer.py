"""What a worker holds of one layer: sinks, recent rows and the last selection.

One tensor, [row][kv_head][slot][K | V], in three regions of slots:

    0 .. sinks            token j of a row at slot j
    .. + ring             the newest columns: column c at c % ring
    .. + selected         the selection, its tokens in any order

so that a decode step is one product over all slots, with a bias of -inf on those that
are not read. Everything else of the sequence is in the daemon. A *column* is a position
in the padded batch; token = column - pads of the row.
"""

import dataclasses
import warnings

import numpy as np
import torch
from transformers.cache_utils import CacheLayerMixin

# torch warns, once a process, that a view of a message is read-only. Nothing writes there.
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    torch.frombuffer(b"\0", dtype=torch.uint8)

_RAW = {torch.float32: torch.float32, torch.float16: torch.float16, torch.bfloat16: torch.uint16}


def as_numpy(rows: torch.Tensor) -> np.ndarray:
    """A contiguous array in the model's numpy dtype (see kvtier.spec)."""
    return rows.detach().to("cpu").contiguous().view(_RAW[rows.dtype]).numpy()


@dataclasses.dataclass(frozen=True)
class Held:
    """The selection that a row holds: the daemon's i-th of a head is at slots[head, i]."""

    step: int
    slots: np.ndarray  # [kv_heads, n]


class KvtierLayer(CacheLayerMixin):
    is_sliding = False
    is_compileable = False
    is_croppable = True
    supports_early_init = False

    def __init__(self, cache, index, spec, batch, sinks, ring, dtype, device):
        super().__init__()
        self.cache = cache
        self.index = index
        self.spec = spec
        self.sinks = sinks
        self.ring = ring
        self.base = sinks + ring
        self.width = spec.key_dim + spec.value_dim
        shape = (batch, spec.kv_heads, self.base, self.width)
        self.kv = torch.zeros(shape, dtype=dtype, device=device)
        self.held: list[Held | None] = [None] * batch
        # Whether the system reads all of this layer, as far as is known.
        self.dense = False
        self.is_initialized = True

    # transformers' side. The work is done by the attention function, see attention.py.

    def update(self, key_states, value_states, *args, **kwargs):
        self.cache.hand_over(self, key_states, value_states)
        return key_states, value_states

    def lazy_initialization(self, key_states, value_states):
        pass

    def get_seq_length(self):
        return self.cache.get_seq_length()

    def get_mask_sizes(self, query_length):
        return self.cache.get_seq_length() + query_length, 0

    def get_max_length(self):
        return -1

    # Rows in and out.

    def column_slots(self, begin, end):
        columns = torch.arange(begin, end, device=self.kv.device)
        return columns.remainder_(self.ring).add_(self.sinks)

    def write_column(self, column, key, value):
        """key, value: [row][kv_head][1][dim]."""
        slot = self.sinks + column % self.ring
        dim = self.spec.key_dim
        self.kv[:, :, slot, :dim] = key[:, :, 0]
        self.kv[:, :, slot, dim:] = value[:, :, 0]

    def write_columns(self, begin, key, value):
        """key, value: [row][kv_head][token][dim], of columns from begin."""
        count = min(key.shape[2], self.ring)
        end = begin + key.shape[2]
        slots = self.column_slots(end - count, end)
        dim = self.spec.key_dim
        self.kv[:, :, slots, :dim] = key[:, :, -count:]
        self.kv[:, :, slots, dim:] = value[:, :, -count:]

    def write_row_columns(self, row, begin, rows):
        """rows: [kv_head][token][K | V], at most ring tokens, into columns from begin."""
        slots = self.column_slots(begin, begin + rows.shape[1])
        self.kv[row].index_copy_(1, slots, rows.to(self.kv.device))

    def write_sinks(self, row, token, rows):
        """rows: [kv_head][token][K | V], of tokens from `token`."""
        self.kv[row, :, token : token + rows.shape[1]] = rows.to(self.kv.device)

    def columns(self, row, begin, end):
        """[kv_head][token][K | V], a copy."""
        return self.kv[row].index_select(1, self.column_slots(begin, end))

    def select_rows(self, indices):
        index = torch.tensor(indices, device=self.kv.device)
        self.kv = self.kv.index_select(0, index)
        self.held = [self.held[i] for i in indices]

    # The selection.

    @property
    def selected(self) -> int:
        return max((held.slots.shape[1] for held in self.held if held), default=0)

    def hold(self, row, step, kept_counts, added_counts, kept, rows) -> bool:
        """Makes kept of the held selection, then the added rows, the selection of `row`.

        Added rows take the slots of those that were dropped; kept rows stay where they
        are. False, with nothing changed, when heads select different numbers."""
        count = int(kept_counts[0] + added_counts[0])
        if (kept_counts + added_counts != count).any():
            return False
        kv_heads = self.spec.kv_heads
        heads = np.repeat(np.arange(kv_heads), kept_counts)
        old = self.held[row]
        slots = old.slots[heads, kept] if len(kept) else np.empty(0, np.int64)
        if len(slots) and slots.max() >= count:
            # The selection shrank: move everything to the front.
            rows = self._gathered(row, heads, slots, kept_counts, added_counts, rows)
            added_counts, kept_counts = added_counts + kept_counts, kept_counts * 0
            heads = slots = np.empty(0, np.int64)
        used = np.zeros((kv_heads, count), bool)
        used[heads, slots] = True
        free_heads, free_slots = np.nonzero(~used)
        if len(free_slots):
            self._reserve(count)
            self._write(row, free_heads, free_slots, rows)
        is_kept = np.arange(count) < np.asarray(kept_counts)[:, None]
        new = np.empty((kv_heads, count), np.int64)
        new[is_kept] = slots
        new[~is_kept] = free_slots
        self.held[row] = Held(step, new)
        return True

    def selection_rows(self, row, head, indices):
        """[n][K | V] of the held selection."""
        slots = torch.from_numpy(self.held[row].slots[head, indices] + self.base)
        return self.kv[row, head].index_select(0, slots.to(self.kv.device))

    def _gathered(self, row, heads, slots, kept_counts, added_counts, rows):
        added = torch.frombuffer(rows, dtype=self.kv.dtype) if rows else self.kv.new_empty(0)
        added = added.view(-1, self.width).to(self.kv.device).split(added_counts.tolist())
        index = torch.from_numpy(slots + self.base).to(self.kv.device).split(kept_counts.tolist())
        parts = []
        for head in range(self.spec.kv_heads):
            parts += [self.kv[row, head].index_select(0, index[head]), added[head]]
        return as_numpy(torch.cat(parts)).tobytes()

    def _reserve(self, count):
        have = self.kv.shape[2] - self.base
        if count > have:
            more = max(count, min(2 * have, 2 * count)) - have
            pad = self.kv.new_zeros((*self.kv.shape[:2], more, self.width))
            self.kv = torch.cat([self.kv, pad], 2)

    def _write(self, row, heads, slots, rows):
        target = self.kv[row].view(-1, self.width)
        index = torch.from_numpy(heads * self.kv.shape[2] + slots + self.base)
        source = torch.frombuffer(rows, dtype=self.kv.dtype).view(-1, self.width)
        target.index_copy_(0, index.to(target.device), source.to(target.device))
