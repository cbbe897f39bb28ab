"""The demo's main job; deploy/demo runs it. See there for what it is.

Every figure that it prints is measured in this run.
"""

import argparse
import json
import os
import pathlib
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import torch
import transformers
from tqdm import tqdm

import demo_model
import demo_report
import kvtier.transformers

# Of the two best logits, where the f32 results of two summation orders may differ.
TIE = 1e-4
SINKS, RECENT = 4, 64
START_SECONDS = 20


class Daemon:
    """A kvtierd in a directory of its own, gone with it."""

    def __init__(self, binary):
        self.binary = binary
        self.directory = tempfile.mkdtemp(prefix="kvtier-demo-")
        self.config = pathlib.Path(self.directory, "kvtierd.toml")
        self.config.write_text(
            f'[daemon]\nruntime_dir = "{self.directory}"\n'
            '[[namespace]]\nname = "default"\n[[namespace]]\nname = "memory"\n'
            f'[disk]\ndirectory = "{self.directory}/disk"\ncapacity = "4GiB"\n'
        )
        self.start()

    def start(self):
        self.log = open(pathlib.Path(self.directory, "log"), "wb")
        self.process = subprocess.Popen(
            [self.binary, "--config", self.config], stdout=subprocess.PIPE, stderr=self.log
        )
        if not select.select([self.process.stdout], [], [], START_SECONDS)[0] or (
            b"ready" not in self.process.stdout.readline()
        ):
            log = pathlib.Path(self.directory, "log").read_text()
            self.stop()
            sys.exit(f"kvtierd did not start:\n{log}")

    def socket(self, namespace="default"):
        return os.path.join(self.directory, f"{namespace}.sock")

    def kill_and_start(self):
        """As a crash would: SIGKILL, then a new process on the same directory."""
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.log.close()
        self.start()

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.log.close()
        shutil.rmtree(self.directory, ignore_errors=True)


def worker(*arguments):
    """Runs a fresh worker process and returns what it printed."""
    program = pathlib.Path(__file__).with_name("demo_model.py")
    done = subprocess.run(
        [sys.executable, "-B", program, *map(str, arguments)], stdout=subprocess.PIPE
    )
    if done.returncode != 0:
        sys.exit(f"a worker of the demo failed: {' '.join(map(str, arguments))}")
    return json.loads(done.stdout)


def plain_answer(model, ids, tokens):
    """Plain transformers: the answer, and the logits [n, vocabulary] behind it."""
    out = demo_model.generate(
        model, ids, tokens, transformers.DynamicCache(), output_logits=True,
        return_dict_in_generate=True, min_new_tokens=min(32, tokens),
    )  # fmt: skip
    return out.sequences[0, ids.shape[1] :].tolist(), torch.cat(out.logits)


def compare(answer, reference, logits):
    """How `answer` relates to plain transformers' own, token for token."""
    same = next(
        (i for i, (a, b) in enumerate(zip(answer, reference)) if a != b), len(reference)
    )
    if same == len(reference):
        return {"equal": len(answer) == len(reference), "tokens": same}
    best = logits[same].topk(2).values
    gap = float(best[0] - best[1])
    return {"equal": False, "tokens": same, "gap": gap, "tie": gap <= TIE}


def score(model, ids, answer, reference, system, budget, socket):
    """Decodes plain transformers' answer under a system, token by token."""
    with kvtier.transformers.attach(
        model, system, budget, socket=socket, sinks=SINKS, recent=RECENT,
        abstracts=demo_model.ABSTRACTS,
    ) as kv:  # fmt: skip
        cache = kv.cache(ids)
        rest = ids[:, cache.get_seq_length() :]
        model(rest, past_key_values=cache, logits_to_keep=1)
        before, divergence, agree = kv.stats.as_dict(), 0.0, 0
        bar = tqdm(range(len(answer) - 1), desc=f"{system} {budget}", leave=False, disable=None)
        start = time.perf_counter()
        for i in bar:
            logits = model(torch.tensor([[answer[i]]]), past_key_values=cache).logits[0, -1]
            full = reference[i + 1].log_softmax(-1)
            divergence += float((full.exp() * (full - logits.log_softmax(-1))).sum())
            agree += int(logits.argmax() == full.argmax())
        seconds = time.perf_counter() - start
        after = kv.stats.as_dict()
    steps = len(answer) - 1
    moved = {name: (after[name] - before[name]) / steps for name in before if name != "plane"}
    heads = model.config.num_key_value_heads * model.config.num_hidden_layers
    return {
        "name": system,
        "budget": budget,
        "plane": after["plane"],
        "positions": steps,
        "kl": divergence / steps,
        "agree": agree / steps,
        # A layer's and kv head's mean, with sinks and recent window.
        "tokens_read": moved["tokens_selected"] / heads + SINKS + kv.options.recent,
        # Bytes a step; host: rows and abstracts.
        "bytes": {
            "host": moved["host_bytes"] + moved["abstract_bytes"],
            "disk": moved["disk_bytes"],
            "wire": moved["wire_bytes"],
        },
        "step_seconds": seconds / steps,
    }


def measure(daemon, quick):
    tokens = 40 if quick else 96
    budgets = (256,) if quick else (128, 256, 512)
    # disable=None: no bars where stderr is not a terminal.
    stages = tqdm(total=6, desc="demo", bar_format="{desc} {n}/{total} {bar}", disable=None)

    def stage(text):
        stages.update()
        tqdm.write(f"- {text}")

    model, tokenizer = demo_model.load()
    ids = demo_model.prompt_ids(tokenizer)
    tqdm.write(f"- plain transformers reads {ids.shape[1]} tokens and answers")
    answer, reference = plain_answer(model, ids, tokens)
    stage("the same with its KV in kvtierd, system full")
    # As many as plain's answer has: generate() stops by itself at the end of the text.
    with kvtier.transformers.attach(
        model, "full", socket=daemon.socket(), abstracts=demo_model.ABSTRACTS
    ) as kv:
        cache = kv.cache(ids)
        mine, prefill_seconds = demo_model.timed_answer(model, ids, len(answer), cache)
        cache.rows[0].sequence.seal(durable=True)
    full = compare(mine, answer, reference)
    stage("the answer again, under each system")
    systems = [
        score(model, ids, answer, reference, system, budget, daemon.socket())
        for system in ("kvtier", "quest", "window")
        for budget in budgets
    ]
    del reference
    stage("a second worker opens the same document")
    again = worker("reopen", daemon.socket(), len(answer))
    stage("the daemon is killed and started again: the document comes from disk")
    daemon.kill_and_start()
    restarted = worker("reopen", daemon.socket(), len(answer))
    stage("memory of fresh workers at 2K and 7K tokens")
    rss, model_mib = {}, {}
    for where, socket in (("plain", "plain"), ("kvtier", daemon.socket("memory"))):
        for length in (2048, 7168):
            found = worker("memory", socket, length)
            rss[f"{where}_{length // 1024}k"] = found["rss_mib"]
            model_mib[f"{where}_{length // 1024}k"] = found["model_mib"]
    stages.update()
    stages.close()
    return {
        "model": "SmolLM2-135M-Instruct f32",
        "prompt_tokens": ids.shape[1],
        "answer": tokenizer.decode(answer, skip_special_tokens=True),
        "full": full,
        "systems": systems,
        "reuse": {
            "cached_tokens": again["cached_tokens"],
            "prefill_seconds": prefill_seconds,
            "reopen_seconds": again["reopen_seconds"],
            "equal": again["answer"] == mine,
        },
        "restart": {
            "cached_tokens": restarted["cached_tokens"],
            "reopen_seconds": restarted["reopen_seconds"],
            "equal": restarted["answer"] == mine,
        },
        "worker_rss_mib": rss,
        "worker_model_mib": model_mib,
    }


def main():
    parser = argparse.ArgumentParser(prog="deploy/demo")
    parser.add_argument("--kvtierd", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--quick", action="store_true", help="a shorter answer, one budget")
    parser.add_argument("--json", metavar="FILE", help="write every figure")
    parser.add_argument("--plot", metavar="FILE", default=".build/demo.png")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    daemon = Daemon(arguments.kvtierd)
    try:
        with torch.no_grad():
            figures = measure(daemon, arguments.quick)
    finally:
        daemon.stop()
    demo_report.table(figures)
    demo_report.plot(figures, arguments.plot)
    print(f"plot: {arguments.plot}")
    if arguments.json:
        pathlib.Path(arguments.json).write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
