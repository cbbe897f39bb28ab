"""What tests/eval/run does. Prints a row for each system, budget and kind of text."""

import argparse
import json
import pathlib
import sys
import time

import torch

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "deploy"))

import demo  # noqa: E402
import demo_model  # noqa: E402
import intervals  # noqa: E402
import score  # noqa: E402
import texts  # noqa: E402

BOUNDS = pathlib.Path(__file__).with_name("quick_bounds.json")
SYSTEMS = ("full", "kvtier", "quest", "window")


def daemon_path():
    for build in ("dev", "release"):
        path = ROOT / ".build" / build / "daemon" / "kvtierd"
        if path.exists():
            return path
    sys.exit("no kvtierd in .build/dev or .build/release: deploy/demo builds it")


def row(system, budget, kind, scored, first, count):
    """Of `count` texts of the batch, from the first."""
    texts_of_kind = slice(first, first + count)
    kl, kl_low, kl_high = intervals.interval(scored["kl"][texts_of_kind])
    agree, agree_low, agree_high = intervals.interval(scored["agree"][texts_of_kind])
    return {
        "system": system,
        "budget": budget,
        "text": kind,
        "plane": scored["plane"],
        "kl": kl,
        "kl_low": kl_low,
        "kl_high": kl_high,
        "agree": agree,
        "agree_low": agree_low,
        "agree_high": agree_high,
        "mass": sum(scored["mass"][texts_of_kind]) / count,
        "tokens_read": scored["tokens_read"],
        "bytes_touched": scored["bytes_touched"],
        "positions": sum(map(len, scored["kl"][texts_of_kind])),
    }


def show(found):
    print(
        "{system:8} {budget:6} {text:8} KL {kl:.4f} [{kl_low:.4f}, {kl_high:.4f}]  "
        "agree {agree:.3f} [{agree_low:.3f}, {agree_high:.3f}]  mass {mass:.3f}  "
        "tokens {tokens_read:.0f}  "
        "MB {megabytes:.1f}".format(megabytes=found["bytes_touched"] / 1e6, **found),
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser(prog="tests/eval/run")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument(
        "--quick", action="store_true", help="one short text a kind; fails on regression"
    )
    parser.add_argument("--system", action="append", metavar="NAME")
    parser.add_argument("--budget", action="append", type=int, metavar="TOKENS")
    parser.add_argument("--kind", action="append", choices=texts.KINDS)
    arguments = parser.parse_args()
    count, prompt, scored = (1, 3072, 64) if arguments.quick else (4, 5888, 256)
    systems = arguments.system or (("kvtier", "quest") if arguments.quick else SYSTEMS)
    budgets = arguments.budget or ((128,) if arguments.quick else (128, 256))
    kinds = arguments.kind or texts.KINDS
    started = time.monotonic()
    daemon = demo.Daemon(str(daemon_path()))
    rows = []
    try:
        model, tokenizer = demo_model.load()
        with torch.no_grad():
            # The quick form decodes all kinds as one batch.
            for group in [kinds] if arguments.quick else [[kind] for kind in kinds]:
                found = [
                    ids
                    for kind in group
                    for ids in texts.texts(tokenizer, kind, count, prompt, scored)
                ]
                plain = score.reference(model, found, scored)
                for system in systems:
                    for budget in budgets if system != "full" else (0,):
                        got = score.decode(
                            model, found, scored, plain, system, budget, daemon.socket()
                        )
                        for i, kind in enumerate(group):
                            rows.append(row(system, budget, kind, got, i * count, count))
                            show(rows[-1])
    finally:
        daemon.stop()
    if arguments.json:
        pathlib.Path(arguments.json).write_text(json.dumps(rows, indent=2) + "\n")
    print(f"{sum(r['positions'] for r in rows)} positions in {time.monotonic() - started:.0f} s")
    if arguments.quick:
        wrong = intervals.regressions(rows, json.loads(BOUNDS.read_text())["bounds"])
        for sentence in wrong:
            print(f"regression: {sentence}")
        print(f"{len(wrong)} regressions")
        sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
