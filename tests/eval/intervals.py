"""Means with bootstrap intervals.

Neighbouring positions of a text are not independent, so what is drawn again is blocks of
neighbours, not positions: the interval of 1,024 positions is that of 32 blocks.
"""

import numpy as np

BLOCK = 32
DRAWS = 2000


def interval(values, seed=0, share=0.95):
    """(mean, low, high) of values [text][position]."""
    values = np.asarray(values, dtype=np.float64)
    whole = values.shape[1] // BLOCK * BLOCK
    if whole == 0:
        raise ValueError(f"{values.shape[1]} positions a text: at least {BLOCK} are needed")
    blocks = values[:, :whole].reshape(-1, BLOCK).mean(1)
    drawn = np.random.default_rng(seed).integers(0, len(blocks), (DRAWS, len(blocks)))
    means = blocks[drawn].mean(1)
    low, high = np.quantile(means, [(1 - share) / 2, (1 + share) / 2])
    return float(values.mean()), float(low), float(high)


def regressions(rows, bounds):
    """Rows that are worse than their bound, as sentences.

    bounds: [{system, budget, text, kl_max, agree_min}]; each must have its row."""
    found = []
    by_key = {(row["system"], row["budget"], row["text"]): row for row in rows}
    for bound in bounds:
        key = (bound["system"], bound["budget"], bound["text"])
        row = by_key.get(key)
        name = "{} at {} on {}".format(*key)
        if row is None:
            found.append(f"{name}: not measured")
            continue
        if not row["kl"] <= bound["kl_max"]:
            found.append(f"{name}: KL {row['kl']:.4f} is over {bound['kl_max']}")
        if not row["agree"] >= bound["agree_min"]:
            found.append(f"{name}: agreement {row['agree']:.3f} is under {bound['agree_min']}")
    return found
