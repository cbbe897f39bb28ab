"""Attention over a part of the tokens, and putting parts together.

A part's result is (output, lse): the attention output over that part alone and the
natural log-sum-exp of its scaled logits, both f32. Merging parts weighs each output
with its share exp(lse - total), which is exact.
"""

import torch

# Queries in one go: bounds the logits held in memory.
_QUERY_BLOCK = 256
_flash_cpu = getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", None)


def merge(a, b):
    """(output [..., d], lse [...]) of the union of two disjoint parts. None is empty; so
    is, of one query, an lse of -inf, with output 0."""
    if a is None or b is None:
        return a or b
    lse = torch.logaddexp(a[1], b[1])
    # Finite where both are empty: -inf - -inf would be NaN.
    total = lse.clamp(min=torch.finfo(lse.dtype).min)
    share_a = torch.exp(a[1] - total).unsqueeze(-1)
    share_b = torch.exp(b[1] - total).unsqueeze(-1)
    return a[0] * share_a + b[0] * share_b, lse


def attend(query, key, value, scale, causal=False):
    """query [1, H, t, D], key and value [1, Hk, n, D]. With causal, n == t.

    Returns (output [1, H, t, Dv], lse [1, H, t]). torch's CPU kernel gives the lse
    too, but is not a public function: without it, plain operations do the same."""
    if _flash_cpu and query.device.type == "cpu" and key.shape[-1] == value.shape[-1]:
        output, lse = _flash_cpu(query, key, value, 0.0, causal, attn_mask=None, scale=scale)
        return output.float(), lse.float()
    return attend_plain(query, key, value, scale, causal)


def attend_plain(query, key, value, scale, causal=False):
    _, heads, tokens, dim = query.shape
    kv_heads = key.shape[1]
    groups = query.float().view(1, kv_heads, heads // kv_heads, tokens, dim) * scale
    key = key.float().unsqueeze(2).transpose(-1, -2)
    value = value.float().unsqueeze(2)
    parts = []
    for begin in range(0, tokens, _QUERY_BLOCK):
        end = min(tokens, begin + _QUERY_BLOCK)
        seen = end if causal else key.shape[-1]
        logits = groups[..., begin:end, :] @ key[..., :seen]
        if causal:
            future = torch.ones(end - begin, seen, dtype=torch.bool, device=query.device)
            logits.masked_fill_(future.triu(begin + 1), float("-inf"))
        lse = torch.logsumexp(logits, -1)
        parts.append((torch.exp(logits - lse.unsqueeze(-1)) @ value[..., :seen, :], lse))
    output = torch.cat([part[0] for part in parts], -2).reshape(1, heads, tokens, -1)
    return output, torch.cat([part[1] for part in parts], -1).reshape(1, heads, tokens)


def attend_one(query, rows, key_dim):
    """One query per head, already scaled: [Hk, G, D] f32; rows [Hk, n, K | V].

    Returns (output [Hk, G, Dv], lse [Hk, G])."""
    rows = rows.float()
    logits = query @ rows[..., :key_dim].transpose(-1, -2)
    lse = torch.logsumexp(logits, -1)
    return torch.exp(logits - lse.unsqueeze(-1)) @ rows[..., key_dim:], lse
