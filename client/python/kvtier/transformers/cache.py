"""A Hugging Face cache whose rows are sequences in the daemon.

The daemon has all full chunks of every row; the worker holds what layer.py says. So
`sent` of a row, the tokens the daemon has, is always a multiple of the chunk, and what
is beyond it lives in the ring. One cache belongs to one `generate` at a time.
"""

import weakref

import torch
from transformers.cache_utils import Cache

from kvtier.errors import KvtierError
from kvtier.transformers import attention
from kvtier.transformers.layer import KvtierLayer
from kvtier.transformers.rows import Row

# Columns that the ring keeps beyond those it must, so that speculative decoding can
# take back a few tokens without reading from the daemon.
_SLACK = 64


class KvtierCache(Cache):
    def __init__(self, attached, model, input_ids=None, attention_mask=None):
        """`model`: the registered kvtier.Model."""
        self.attached = attached
        self.client = attached.client
        self.model = model
        self.options = attached.options
        self.chunk = self.client.chunk_tokens
        self.ring = max(self.options.recent, self.chunk) + _SLACK
        self.length = 0  # columns, equal at all layers between two forwards
        self.held_from = 0  # first column that the ring still has
        self.prompt_columns = 0  # columns given here: exact, unless their row selects
        self.cached_tokens = []
        self.new = True  # no forward went through it
        self.broken = None  # what to raise, when a forward failed half-way
        self.rows: list[Row] = []
        super().__init__(layers=[])
        weakref.finalize(self, _orphan_rows, self.client, self.rows)
        if input_ids is not None:
            self._open_prompt(input_ids, attention_mask)

    # Opening.

    def _open_prompt(self, input_ids, attention_mask):
        if input_ids.ndim == 1:
            input_ids = input_ids.unsqueeze(0)
        pads = self._prompt_pads(input_ids, attention_mask)
        columns = input_ids.shape[1]
        ids = input_ids.tolist()
        self.open_rows(pads, [row[pad:] for row, pad in zip(ids, pads)], reuse=True)
        self.prompt_columns = columns
        column = min(min(row.pads + row.sequence.cached_tokens for row in self.rows), columns - 1)
        if any(row.sequence.cached_tokens for row in self.rows):
            self._restore(column)
        self._set_reused()

    def _set_reused(self):
        for row in self.rows:
            row.reused = row.length(self.length)
        self.cached_tokens = [row.reused for row in self.rows]

    def _prompt_pads(self, input_ids, attention_mask):
        if attention_mask is not None:
            return mask_pads(attention_mask, input_ids.shape[1])
        pad_id = self.attached.pad_token_id
        if pad_id is None or input_ids.shape[0] == 1:
            return [0] * input_ids.shape[0]
        # As generate does: the leading run of pad tokens is padding. The first forward
        # tells, and refuses if something was reused under the wrong assumption.
        return mask_pads((input_ids != pad_id).cummax(1).values, input_ids.shape[1])

    def open_rows(self, pads, ids, reuse):
        """`ids` may be empty lists: then nothing is looked up."""
        self._close_rows()
        for pad, row_ids in zip(pads, ids):
            if reuse and not row_ids:
                raise ValueError("a row of the batch is nothing but padding")
            sequence = self.client.open_sequence(
                self.model,
                row_ids,
                system=self.options.system,
                budget=self.options.budget,
                dense_layers=self.options.dense_layers,
                cached_tokens_max=len(row_ids) - 1 if reuse else 0,
                computed_under=self.options.computed_under,
            )
            self.rows.append(Row(sequence, pad, row_ids))
        model = self.attached.model
        self.layers[:] = [
            KvtierLayer(
                self, i, spec, len(pads), self.options.sinks, self.ring, model.dtype, model.device
            )
            for i, spec in enumerate(self.model.spec.layers)
        ]

    def reopen(self, pads):
        """Before the first forward, when what was assumed of the prompt is wrong."""
        if self.length:
            raise ValueError(
                "the input_ids or the padding differ from what cache() was given, and a part"
                " of that was found in the daemon: pass the same input_ids and"
                " attention_mask to cache() and to generate()"
            )
        self.prompt_columns = 0
        self.open_rows(pads, [[] for _ in pads], reuse=False)

    def is_whole_prompt(self, ids):
        """Whether `ids` are a prompt from its first column, not from the reused ones on."""
        return any(
            not row.matches_prompt(row_ids[max(0, row.pads - self.length) :])
            for row, row_ids in zip(self.rows, ids)
        ) and all(
            row_ids[row.pads : row.pads + len(row.ids)] == list(row.ids)
            for row, row_ids in zip(self.rows, ids)
        )

    def rewind(self):
        """Forgets what was reused."""
        self._restore(0)
        self._set_reused()

    # The rows.

    def selects(self, row) -> bool:
        """Whether the next tokens of `row`, also of a prompt, are computed with what the
        system selects of those before: behind a cached prefix, and behind a prompt."""
        if self.options.prompt != "selected":
            return False
        return row.reused > 0 or 0 < self.prompt_columns <= self.length

    def tail_start(self, length):
        """First column of the tail that is read from the ring at this length: the recent
        window, and whatever a row has not sent."""
        sent = min(row.pads + row.sent for row in self.rows)
        return max(0, min(length - self.options.recent, sent))

    def _restore(self, length):
        """Makes `length` the length: brings into the ring what must be held then, cuts
        the sequences to full chunks."""
        sents = [min(row.sent, row.length(length) // self.chunk * self.chunk) for row in self.rows]
        sent_column = min(row.pads + sent for row, sent in zip(self.rows, sents))
        begin = max(0, min(length - self.options.recent, sent_column))
        # Where the ring has nothing yet, or lost what is needed.
        end = length if self.length == 0 else min(length, self.held_from)
        for index, (row, sent) in enumerate(zip(self.rows, sents)):
            first, last = row.length(begin), row.length(end)
            if first < last:
                for layer, token, rows in self._read(row, first, last - first):
                    self.layers[layer].write_row_columns(index, token + row.pads, rows)
            if self.length == 0:
                sinks = min(self.options.sinks, row.length(length))
                for layer, token, rows in self._read(row, 0, sinks):
                    self.layers[layer].write_sinks(index, token, rows)
            if sent < row.sent:
                row.sequence.truncate(sent)
                for layer in self.layers:
                    layer.held[index] = None
            row.cut(sent, row.length(length))
        self.held_from = min(begin, self.held_from) if self.length else begin
        self.length = length

    def _read(self, row, begin, count):
        if count <= 0:
            return
        for layer, token, rows in row.sequence.read(begin, count):
            self.attached.stats.add(read_bytes=rows.nbytes, rpcs=0)
            tensor = torch.frombuffer(rows, dtype=self.layers[layer].kv.dtype).view(rows.shape)
            yield layer, token, tensor

    def expand(self, batch):
        """Repeats rows: a prompt of one row, sampled or searched in several."""
        if not self.rows or batch % len(self.rows):
            raise ValueError(f"this cache has {len(self.rows)} rows, the batch {batch}")
        self._select([i for i in range(len(self.rows)) for _ in range(batch // len(self.rows))])

    def _select(self, indices):
        if indices == list(range(len(self.rows))):
            return
        taken = set()
        chosen = []
        for i in indices:
            chosen.append(self.rows[i].fork() if i in taken else self.rows[i])
            taken.add(i)
        for i, row in enumerate(self.rows):
            if i not in taken:
                row.sequence.close()
        self.rows[:] = chosen
        for layer in self.layers:
            layer.select_rows(indices)

    # What generate() asks of a cache.

    def get_seq_length(self, layer_idx=0):
        return self.length

    def get_max_length(self, layer_idx=None):
        return -1

    def get_mask_sizes(self, query_length, layer_idx=0):
        return self.length + query_length, 0

    @property
    def is_initialized(self):
        return bool(self.layers)

    def update(self, key_states, value_states, layer_idx, *args, **kwargs):
        if not self.layers:
            raise RuntimeError(
                "this cache belongs to the model that kvtier was attached to: call that model"
            )
        return self.layers[layer_idx].update(key_states, value_states)

    def crop(self, tokens_to_remove):
        if tokens_to_remove > 0:
            raise ValueError("crop() takes the number of tokens to remove, as a negative number")
        if tokens_to_remove and self.rows:
            self._restore(max(0, self.length + tokens_to_remove))

    def reorder_cache(self, beam_idx):
        self._select(beam_idx.tolist())

    def batch_repeat_interleave(self, repeats):
        self.expand(len(self.rows) * repeats)

    def batch_select_indices(self, indices):
        self._select(torch.arange(len(self.rows))[indices.cpu()].tolist())

    def reset(self):
        """Forgets everything; the daemon keeps the sealed chunks."""
        self._close_rows()
        self.layers[:] = []
        self.length = self.held_from = self.prompt_columns = 0
        self.cached_tokens = []
        self.new, self.broken = True, None

    def close(self):
        """Closes the rows' sequences; their sealed chunks stay cached."""
        self._close_rows()
        self.layers[:] = []
        self.set_broken("it was closed")

    def set_broken(self, why, cause=None):
        """Makes the cache unusable; its user gets the kind of error that broke it."""
        kind = type(cause) if isinstance(cause, KvtierError) else RuntimeError
        details = f" ({cause})" if cause else ""
        self.broken = kind(
            f"this kvtier cache can't be used: {why}; make a new one with cache(){details}"
        )

    def _close_rows(self):
        rows, self.rows[:] = list(self.rows), []
        for row in rows:
            if row.sequence.open:
                row.sequence.close()

    # The hand-over from update() to the attention function of the same layer and thread.

    def hand_over(self, layer, key, value):
        attention.hand_over(self, layer, key, value)


def mask_pads(attention_mask, columns):
    """Leading zeros of each row of a mask that is zeros, then ones."""
    if attention_mask.ndim != 2 or attention_mask.shape[1] != columns:
        raise ValueError(
            f"attention_mask {tuple(attention_mask.shape)}: want one column for each of the"
            f" {columns} tokens so far, padding included"
        )
    mask = attention_mask != 0
    pads = (columns - mask.sum(1)).tolist()
    if (mask[:, 1:] < mask[:, :-1]).any():
        raise ValueError(
            "attention_mask has padding on the right or a hole: pad on the left (generate()"
            " makes a mask from pad_token_id when it is given none)"
        )
    return pads


def _orphan_rows(client, rows):
    for row in rows:
        client.orphan(row.sequence)
