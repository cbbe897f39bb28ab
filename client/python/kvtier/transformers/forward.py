"""One forward of the model through a KvtierCache: what each layer's attention does.

    decode (one token)      held slots + what the daemon selects + its estimated rest
    prompt (more tokens)    new tokens, causal + held slots + all else, read in parts;
                            a row that selects: what is selected for windows of tokens

Every part is (output, log-sum-exp), merged in f32. A chunk is sent when the layer's
attention has read what it needs, so that no token is read twice or not at all: with a
prompt layer by layer (that bounds memory), with decode steps after the last layer.
"""

import functools

import numpy as np
import torch

from kvtier import wire
from kvtier.transformers import merge, window
from kvtier.transformers.layer import as_numpy
from kvtier.v1 import worker_pb2


class Forward:
    def __init__(self, cache, ids):
        """`ids`: [row][token], padding included."""
        self.cache = cache
        self.rows = cache.rows
        self.options = cache.options
        self.begin = cache.length
        self.tokens = len(ids[0])
        self.end = self.begin + self.tokens
        selects = [cache.selects(row) for row in self.rows]
        # Where a row must be exact so are the prompt's last tokens, one at a time too.
        self.is_prompt = self.tokens > 1 or (
            self.begin < cache.prompt_columns and not all(selects)
        )
        self.tail = cache.tail_start(self.begin if self.is_prompt else self.end)
        # Per row: tokens before the tail, and how many of them are sinks.
        self.before = [max(0, self.tail - row.pads) for row in self.rows]
        self.sinks = [min(self.options.sinks, before) for before in self.before]
        # Per row: whether some of what is before the tail is left unread.
        self.sparse = [
            (row_selects or not self.is_prompt) and self.options.drops(before - sinks)
            for row_selects, before, sinks in zip(selects, self.before, self.sinks)
        ]
        self.step = 0
        self.counts = dict.fromkeys(cache.attached.stats.FIELDS, 0)
        self._extend_rows(ids)
        if not self.is_prompt:
            self._plan_decode()

    def _extend_rows(self, ids):
        for row, row_ids, sparse in zip(self.rows, ids, self.sparse):
            fresh = row_ids[max(0, row.pads - self.begin) :]
            if fresh:
                row.extend(fresh, approximate=sparse)

    # Decode.

    def _plan_decode(self):
        options, layers = self.options, self.cache.layers
        self.asking = [
            i
            for i, (before, sinks) in enumerate(zip(self.before, self.sinks))
            if before > sinks and options.asks
        ]
        if self.asking:
            self.step = self.cache.client.next_step()
        # After a crop a row may ask no more: what it held is in the ring again.
        for i in set(range(len(self.rows))).difference(self.asking):
            for layer in layers:
                layer.held[i] = None
        # What the slots of sinks and ring add to the logits: 0 or -inf.
        ring = layers[0].ring
        bias = np.full((len(self.rows), 1, 1, options.sinks + ring), -np.inf, np.float32)
        columns = np.arange(self.tail, self.end)
        slots = options.sinks + columns % ring
        for i, (row, sinks) in enumerate(zip(self.rows, self.sinks)):
            bias[i, 0, 0, slots[columns >= row.pads]] = 0
            bias[i, 0, 0, slots[-1]] = 0  # also in a row that is padding so far
            bias[i, 0, 0, :sinks] = 0
        self.bias = torch.from_numpy(bias).to(layers[0].kv.device)
        self.new_sinks = [
            (i, self.begin - row.pads)
            for i, row in enumerate(self.rows)
            if 0 <= self.begin - row.pads < options.sinks
        ]

    def decode(self, layer, query, key, value, scale):
        layer.write_column(self.begin, key, value)
        for i, sink in self.new_sinks:
            layer.kv[i, :, sink] = torch.cat([key[i, :, 0], value[i, :, 0]], -1)
        spec = layer.spec
        rows = query.shape[0]
        groups = query.reshape(rows, spec.kv_heads, -1, spec.key_dim).float()
        found = self._retrieve(layer, groups, scale) if self.asking else ()
        virtual = [self._virtual(parts, groups, spec.value_dim) for parts in found if parts]
        slots = layer.base + layer.selected
        kv = layer.kv[:, :, :slots].float()
        logits = (groups * scale) @ kv[..., : spec.key_dim].transpose(-1, -2)
        logits[..., : layer.base] += self.bias
        if slots > layer.base and rows > 1:
            self._hide_empty_slots(layer, logits)
        if virtual:
            logits = torch.cat([logits, *(lse.unsqueeze(-1) for _, lse in virtual)], -1)
        shares = torch.softmax(logits, -1)
        output = shares[..., :slots] @ kv[..., spec.key_dim :]
        for i, (part, _) in enumerate(virtual):
            output += shares[..., slots + i, None] * part
        return output.reshape(rows, 1, -1, spec.value_dim).to(query.dtype)

    def _hide_empty_slots(self, layer, logits):
        for i, held in enumerate(layer.held):
            count = held.slots.shape[1] if held else 0
            logits[i, ..., layer.base + count :] = float("-inf")

    def _retrieve(self, layer, groups, scale):
        """Asks for all rows at once. Selections that are kept go into the layer. Returns
        what isn't, attended to, and what was estimated of the rest:
        two of {row: (value [Hk, G, Dv], lse [Hk, G])}."""
        queries = groups.cpu().numpy()
        items = []
        for i in self.asking:
            held = layer.held[i]
            items.append(
                worker_pb2.RetrieveItem(
                    sequence_id=self.rows[i].sequence.id,
                    layer=layer.index,
                    query=queries[i].tobytes(),
                    candidates_begin=self.sinks[i],
                    candidates_end=self.before[i],
                    held_step=held.step if held else 0,
                )
            )
        counts = self.counts
        counts["rpcs"] += 1
        streamed = {}
        rests = {}
        left = iter(self.asking)
        row, whole = next(left), True
        for result in self.cache.client.retrieve(self.step, items):
            counts["wire_bytes"] += len(result.rows) + len(result.rest_output)
            if result.unchanged:
                pass
            elif not self._keep(layer, row, result, whole):
                part = self._attend_part(layer, row, result, groups[row] * scale)
                streamed[row] = merge.merge(streamed.get(row), part)
            whole = False
            if result.last_part:
                if row in streamed:
                    layer.held[row] = None
                if result.rest_lse:
                    rests[row] = self._rest(result, groups[row], layer.spec.value_dim)
                self._count(result.cost)
                row, whole = next(left, None), True
        return streamed, rests

    def _keep(self, layer, row, result, whole):
        """A selection is kept when it is within the budget and came in one part."""
        if not (whole and result.last_part):
            return False
        kept_counts = np.frombuffer(result.kept_counts, np.uint32).astype(np.int64)
        added_counts = np.frombuffer(result.added_counts, np.uint32).astype(np.int64)
        if not len(added_counts):
            added_counts = np.zeros(layer.spec.kv_heads, np.int64)
        if not len(kept_counts):
            kept_counts = np.zeros(layer.spec.kv_heads, np.int64)
        if kept_counts[0] + added_counts[0] > self.options.budget:
            return False
        kept = np.frombuffer(result.kept, np.uint32)
        return layer.hold(row, self.step, kept_counts, added_counts, kept, result.rows)

    def _attend_part(self, layer, row, result, query):
        """Merges head by head: counts may differ. query: [Hk, G, D], scaled."""
        spec = layer.spec
        kept_counts = np.frombuffer(result.kept_counts, np.uint32)
        counts = np.frombuffer(result.added_counts, np.uint32)
        if not result.added_counts:
            return None
        added = torch.frombuffer(result.rows or b"\0\0\0\0", dtype=layer.kv.dtype)
        added = added[: int(counts.sum()) * layer.width].view(-1, layer.width).to(layer.kv.device)
        if not result.kept and (counts == counts[0]).all() and counts[0]:
            return merge.attend_one(query, added.view(spec.kv_heads, -1, layer.width), spec.key_dim)
        added = added.split(counts.tolist())
        kept = np.frombuffer(result.kept, np.uint32)
        kept_ends = np.cumsum(kept_counts) if len(kept_counts) else [0] * spec.kv_heads
        outputs, lses = [], []
        for head in range(spec.kv_heads):
            rows = added[head]
            if len(kept):
                end = kept_ends[head]
                mine = kept[end - kept_counts[head] : end].astype(np.int64)
                rows = torch.cat([layer.selection_rows(row, head, mine), rows])
            output, lse = merge.attend_one(query[head : head + 1], rows[None], spec.key_dim)
            outputs.append(output)
            lses.append(lse)
        return torch.cat(outputs), torch.cat(lses)

    def _rest(self, result, group, value_dim):
        output = torch.frombuffer(result.rest_output, dtype=torch.float32)
        lse = torch.frombuffer(result.rest_lse, dtype=torch.float32)
        shape = group.shape[:2]
        return output.view(*shape, value_dim).to(group.device), lse.view(shape).to(group.device)

    def _virtual(self, parts, groups, value_dim):
        """As tokens that all rows have: value [row, Hk, G, Dv], logit [row, Hk, G]."""
        if len(parts) == groups.shape[0] == 1:
            output, lse = parts[0]
            return output[None], lse[None]
        outputs = groups.new_zeros((*groups.shape[:3], value_dim))
        lses = groups.new_full(groups.shape[:3], float("-inf"))
        for row, (output, lse) in parts.items():
            outputs[row], lses[row] = output, lse
        return outputs, lses

    def _count(self, cost):
        counts = self.counts
        counts["retrievals"] += 1
        counts["tokens_selected"] += cost.tokens_selected
        counts["abstract_bytes"] += cost.abstract_bytes
        counts["host_bytes"] += cost.host_bytes
        counts["disk_bytes"] += cost.disk_bytes

    # Prompt.

    def prompt_attention(self, layer, query, key, value, scale):
        rows, heads, tokens, _ = query.shape
        output = query.new_zeros((rows, tokens, heads, layer.spec.value_dim))
        for i, row in enumerate(self.rows):
            pad = min(tokens, max(0, row.pads - self.begin))
            if pad == tokens:
                continue
            mine = query[i : i + 1, :, pad:]
            part = merge.attend(
                mine, key[i : i + 1, :, pad:], value[i : i + 1, :, pad:], scale, causal=True
            )
            if row.length(self.begin):
                part = self._with_past(layer, i, row, mine, scale, part)
            output[i, pad:] = part[0][0].transpose(0, 1)
        self._send_prompt(layer, key, value)
        self._write_prompt(layer, key, value)
        return output

    def _with_past(self, layer, i, row, query, scale, part):
        dim = layer.spec.key_dim
        held = layer.columns(i, max(self.tail, row.pads), self.begin)
        held = torch.cat([layer.kv[i, :, : self.sinks[i]], held], 1)[None]
        part = merge.merge(part, merge.attend(query, held[..., :dim], held[..., dim:], scale))
        if self.before[i] <= self.sinks[i]:
            return part
        if not self.sparse[i]:
            return self._with_read(layer, i, row, query, scale, part)
        if not self.options.asks:
            return part
        return self._with_selected(layer, i, row, query, scale, part)

    def _with_selected(self, layer, i, row, query, scale, part):
        """Window by window; once a layer turns out to be dense, the others read."""
        client = self.cache.client
        begin, tokens = 0, query.shape[2]
        count = window.window_tokens(layer.spec, client.message_bytes_max)
        parts = []
        while begin < tokens:
            end = tokens if layer.dense else min(tokens, begin + count)
            mine = query[:, :, begin:end]
            done = part[0][:, :, begin:end], part[1][:, :, begin:end]
            if layer.dense:
                done = self._with_read(layer, i, row, mine, scale, done)
            else:
                self.counts["rpcs"] += 1
                candidates = self.sinks[i], self.before[i]
                answered = functools.partial(self._window_answered, layer, candidates)
                selected = window.attend_selected(
                    client, row.sequence.id, layer, mine, scale, candidates, answered
                )
                done = merge.merge(done, selected)
            parts.append(done)
            begin = end
        return torch.cat([p[0] for p in parts], 2), torch.cat([p[1] for p in parts], 2)

    def _window_answered(self, layer, candidates, result):
        self.counts["wire_bytes"] += len(result.rows) + len(result.rest_output)
        if result.last_part:
            self._count(result.cost)
            everything = layer.spec.kv_heads * (candidates[1] - candidates[0])
            layer.dense = result.cost.tokens_selected == everything

    def _with_read(self, layer, i, row, query, scale, part):
        dim = layer.spec.key_dim
        self.counts["rpcs"] += 1
        begin, count = self.sinks[i], self.before[i] - self.sinks[i]
        for _, _, rows in row.sequence.read(begin, count, layer.index, 1):
            self.counts["read_bytes"] += rows.nbytes
            past = torch.frombuffer(rows, dtype=layer.kv.dtype).view(1, *rows.shape)
            past = past.to(query.device)
            part = merge.merge(part, merge.attend(query, past[..., :dim], past[..., dim:], scale))
        return part

    def _send_prompt(self, layer, key, value):
        """Sends the chunks that these tokens complete, at this layer."""
        entries, runs = [], []
        for i, row in enumerate(self.rows):
            full = row.length(self.end) // self.cache.chunk * self.cache.chunk
            if full <= row.sent:
                continue
            held = layer.columns(i, row.pads + row.sent, max(self.begin, row.pads + row.sent))
            first = max(0, row.pads - self.begin)
            last = full + row.pads - self.begin
            fresh = torch.cat([key[i, :, first:last], value[i, :, first:last]], -1)
            rows = as_numpy(torch.cat([held, fresh], 1) if held.shape[1] else fresh)
            entries += self._entries(row, layer, rows)
            if layer.index == 0:
                runs.append(row.token_run(row.sent, full))
        if entries:
            self._append(entries, runs)

    def _write_prompt(self, layer, key, value):
        for i, row in enumerate(self.rows):
            # Tokens of this row among the new columns that are sinks.
            first = max(0, row.pads - self.begin)
            token = self.begin + first - row.pads
            count = min(self.options.sinks - token, self.tokens - first)
            if count > 0:
                new = torch.cat([key[i], value[i]], -1)[:, first : first + count]
                layer.kv[i, :, token : token + count] = new
        layer.write_columns(self.begin, key, value)

    # Sending.

    def _entries(self, row, layer, rows):
        cache = self.cache
        approximate = row.is_approximate(row.sent + rows.shape[1])
        self.counts["appended_bytes"] += rows.nbytes
        for begin, part in wire.split_rows(rows, cache.client.message_bytes_max):
            yield wire.append_entry(
                row.sequence.id, layer.index, row.sent + begin, part, layer.spec.key_dim, approximate
            )

    def _append(self, entries, runs):
        self.counts["rpcs"] += 1
        return self.cache.client.append(entries, runs)

    def finish(self):
        """After the last layer."""
        cache = self.cache
        if not self.is_prompt:
            self._send_decoded()
        for row in self.rows:
            row.sent = row.length(self.end) // cache.chunk * cache.chunk
        cache.length, cache.new = self.end, False
        cache.held_from = max(cache.held_from, self.end - cache.ring)
        cache.attached.stats.add(**self.counts)

    def _send_decoded(self):
        entries, runs = [], []
        for i, row in enumerate(self.rows):
            full = row.length(self.end) // self.cache.chunk * self.cache.chunk
            if full <= row.sent:
                continue
            runs.append(row.token_run(row.sent, full))
            for layer in self.cache.layers:
                rows = layer.columns(i, row.pads + row.sent, row.pads + full)
                entries += self._entries(row, layer, as_numpy(rows))
        if entries:
            self._append(entries, runs)
