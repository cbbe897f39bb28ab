"""Attention of several tokens at once to what the daemon selects for them.

The tokens of a prompt go in windows: the daemon makes one selection for all queries of a
window and estimates the rest for each. Nothing of it is held: a part is attended to when
it comes, then forgotten.
"""

import numpy as np
import torch

from kvtier.transformers import merge
from kvtier.v1 import worker_pb2

# Queries that share a selection.
WINDOW_TOKENS = 64


def window_tokens(spec, message_bytes_max) -> int:
    """So many that queries, and the rest beside a part's rows, fit into a message."""
    token_bytes = 4 * spec.query_heads * (max(spec.key_dim, spec.value_dim) + 1)
    return max(1, min(WINDOW_TOKENS, message_bytes_max // 4 // token_bytes))


def attend_selected(client, sequence_id, layer, query, scale, candidates, answered):
    """One window's attention to all candidates, as far as the system goes.

    query: [1, H, t, D]; candidates: (begin, end), not held by the worker
    answered: called with each RetrieveResult
    Returns (output [1, H, t, Dv], lse [1, H, t]), f32, lse -inf where nothing was read
    or estimated."""
    spec, tokens = layer.spec, query.shape[2]
    item = worker_pb2.RetrieveItem(
        sequence_id=sequence_id,
        layer=layer.index,
        query=query[0].transpose(0, 1).float().contiguous().cpu().numpy().tobytes(),
        query_count=tokens,
        candidates_begin=candidates[0],
        candidates_end=candidates[1],
    )
    part = _nothing(query, spec.value_dim)
    # A step of its own: a step asks once for a layer.
    for result in client.retrieve(client.next_step(), [item]):
        answered(result)
        if result.rows:
            part = merge.merge(part, _attend_rows(layer, query, scale, result))
        if result.rest_lse:
            part = merge.merge(part, _rest(query, spec.value_dim, result))
    return part


def _nothing(query, value_dim):
    shape = query.shape[:3]
    output = torch.zeros((*shape, value_dim), device=query.device)
    return output, torch.full(shape, float("-inf"), device=query.device)


def _attend_rows(layer, query, scale, result):
    """To a part's rows, of which each kv head may have another number."""
    spec = layer.spec
    counts = np.frombuffer(result.added_counts, np.uint32).tolist()
    rows = torch.frombuffer(result.rows, dtype=layer.kv.dtype)
    rows = rows.view(1, 1, -1, layer.width).to(query.device)
    if counts == counts[:1] * spec.kv_heads:
        rows = rows.view(1, spec.kv_heads, -1, layer.width)
        return _attend(query, rows, spec.key_dim, scale)
    group = spec.query_heads // spec.kv_heads
    parts = [
        _attend(mine, of_head, spec.key_dim, scale) if count else _nothing(mine, spec.value_dim)
        for mine, of_head, count in zip(query.split(group, 1), rows.split(counts, 2), counts)
    ]
    return torch.cat([part[0] for part in parts], 1), torch.cat([part[1] for part in parts], 1)


def _attend(query, rows, key_dim, scale):
    return merge.attend(query, rows[..., :key_dim], rows[..., key_dim:], scale)


def _rest(query, value_dim, result):
    """What the daemon estimated: [t][H][Dv] and [t][H], as attention's result."""
    _, heads, tokens, _ = query.shape
    output = torch.frombuffer(result.rest_output, dtype=torch.float32)
    lse = torch.frombuffer(result.rest_lse, dtype=torch.float32)
    output = output.view(1, tokens, heads, value_dim).transpose(1, 2)
    return output.to(query.device), lse.view(1, tokens, heads).transpose(1, 2).to(query.device)
