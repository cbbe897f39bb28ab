"""Real keys, values and queries for the retrieve benches, in a file.

    .venv/bin/python tests/bench/keys.py FILE && tests/bench/run --keys FILE

Reads passages of the Debian handbook, 2,048 tokens each, with SmolLM2-135M-Instruct and
keeps what its 30 layers x 3 kv heads project, before RoPE: the bench gives every row the
position that it has in the context. The queries are those of the tokens after the last
passage. The format is in real_rows.h.
"""

import pathlib
import sys

import numpy as np
import torch

TESTS = pathlib.Path(__file__).resolve().parents[1]
PASSAGE_TOKENS = 2048
QUERIES = 256


def passages(tokenizer, count):
    """Token ids from as many parts of the book; the last is longer by QUERIES."""
    import texts

    book = tokenizer(texts.handbook(), return_tensors="pt").input_ids[0]
    stride = (len(book) - PASSAGE_TOKENS - QUERIES) // count
    for index in range(count):
        more = QUERIES if index == count - 1 else 0
        begin = index * stride
        yield book[begin : begin + PASSAGE_TOKENS + more][None]


def projections(model, ids):
    """For each kind of projection, [layers x heads][token][64] of one passage."""
    kept = {"q_proj": [], "k_proj": [], "v_proj": []}
    width = model.config.head_dim
    hooks = []
    for layer in model.model.layers:
        for name, outputs in kept.items():
            hooks.append(
                getattr(layer.self_attn, name).register_forward_hook(
                    lambda _module, _inputs, output, outputs=outputs: outputs.append(
                        output[0].unflatten(-1, (-1, width)).transpose(0, 1).half().numpy()
                    )
                )
            )
    model.model(ids)
    for hook in hooks:
        hook.remove()
    return {name: np.concatenate(outputs) for name, outputs in kept.items()}


def write(path, model, tokenizer, passage_count):
    keys, values = [], []
    for ids in passages(tokenizer, passage_count):
        rows = projections(model, ids)
        keys.append(rows["k_proj"][:, :PASSAGE_TOKENS])
        values.append(rows["v_proj"][:, :PASSAGE_TOKENS])
        queries = rows["q_proj"][:, PASSAGE_TOKENS:]
    keys, values = np.concatenate(keys, axis=1), np.concatenate(values, axis=1)
    heads, tokens, width = keys.shape
    frequencies = model.model.rotary_emb.inv_freq.numpy().astype("<f4")
    with open(path, "wb") as file:
        file.write(b"kvtkeys1")
        group = len(queries) // heads
        shape = [heads, tokens, width, group, queries.shape[1], passage_count]
        file.write(np.array(shape, "<u4").tobytes())
        for array in (frequencies, keys, values, queries):
            file.write(np.ascontiguousarray(array).tobytes())


def main():
    if len(sys.argv) != 2:
        raise SystemExit("usage: tests/bench/keys.py FILE")
    for folder in ("python", "eval"):
        sys.path.insert(0, str(TESTS / folder))
    import models

    model, tokenizer = models.smollm2()
    with torch.no_grad():
        write(sys.argv[1], model, tokenizer, passage_count=8)


if __name__ == "__main__":
    main()
