"""How much of attention the rows cover that a decode step reads: the share of the softmax
over all tokens' exact logits that lies on them, mean over layers, query heads and sampled
positions. What is estimated, not read, does not count."""

import contextlib
import unittest.mock

import torch

from kvtier.transformers.forward import Forward


class Mass:
    def __init__(self, keys, every=4):
        """keys: [text][layer] of [kv_head][token][dim], as plain transformers has them.
        Looks at one position in `every`."""
        self.keys = keys
        self.every = every
        self.shares = [[] for _ in keys]

    @contextlib.contextmanager
    def watching(self):
        """Patches the worker's decode steps, of rows without padding."""
        decode, retrieve = Forward.decode, Forward._retrieve
        streamed = {}

        def watched_retrieve(forward, layer, groups, scale):
            found = retrieve(forward, layer, groups, scale)
            streamed.update(found[0])
            return found

        def watched_decode(forward, layer, query, key, value, scale):
            streamed.clear()
            output = decode(forward, layer, query, key, value, scale)
            if forward.begin % self.every == 0:
                self._look(forward, layer, query, scale, streamed)
            return output

        with (
            unittest.mock.patch.object(Forward, "decode", watched_decode),
            unittest.mock.patch.object(Forward, "_retrieve", watched_retrieve),
        ):
            yield

    def means(self):
        """[text]"""
        return [sum(shares) / len(shares) for shares in self.shares]

    def _look(self, forward, layer, query, scale, streamed):
        spec = layer.spec
        groups = query.reshape(query.shape[0], spec.kv_heads, -1, spec.key_dim).float() * scale
        slots = layer.base + layer.selected
        logits = groups @ layer.kv[:, :, :slots, : spec.key_dim].float().transpose(-1, -2)
        logits[..., : layer.base] += forward.bias
        for i, keys in enumerate(self.keys):
            held = layer.held[i]
            count = held.slots.shape[1] if held else 0
            read = logits[i, ..., : layer.base + count].logsumexp(-1)
            if i in streamed:
                read = torch.logaddexp(read, streamed[i][1])
            past = keys[layer.index][:, : forward.begin + 1]
            whole = (groups[i] @ past.transpose(-1, -2)).logsumexp(-1)
            # Decoded tokens' keys differ a little from the plain model's.
            self.shares[i].append(float((read - whole).exp().clamp(max=1).mean()))
