"""Goal: the worker's anonymous memory does not grow with the context. Method: in a
process of its own, a model reads 1,024 and then 4,096 tokens; RssAnon, after giving the
heap's free pages back, is compared before and after."""

import subprocess
import sys

import pytest

_CODE = """
import ctypes, gc, sys
import torch
from models import prompt, tiny
import kvtier.transformers

def rss_anon_kib():
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    lines = open("/proc/self/status").read().splitlines()
    return int(next(line for line in lines if line.startswith("RssAnon")).split()[1])

def read(model, inputs, cache):
    for piece in inputs["input_ids"].split(256, 1):
        model(piece, past_key_values=cache, logits_to_keep=1)
    for _ in range(8):
        model(torch.tensor([[5]]), past_key_values=cache)

torch.set_num_threads(1)
# 4 heads of 64: 8 KiB a token at each of 4 layers, 96 MiB between 1K and 4K tokens.
model = tiny(hidden_size=256, num_hidden_layers=4, num_key_value_heads=4)
with kvtier.transformers.attach(model, budget=64, socket=sys.argv[1]) as kv:
    read(model, prompt(512, seed=1), kv.cache())
    sizes = []
    for length in (1024, 4096):
        cache = kv.cache()
        read(model, prompt(length, seed=length), cache)
        sizes.append(rss_anon_kib())
        cache.close()
print(*sizes)
"""


def test_memory_is_flat(socket, request):
    folder = request.path.parent
    out = subprocess.run(
        [sys.executable, "-c", _CODE, socket], cwd=folder, capture_output=True, text=True, timeout=300
    )
    assert out.returncode == 0, out.stderr
    small, large = map(int, out.stdout.split())
    assert large - small < 16 * 1024, f"{small} KiB at 1K tokens, {large} KiB at 4K"
