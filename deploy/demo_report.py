"""The demo's figures as a table and as a plot."""

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402

COLOURS = {"kvtier": "#0b6e4f", "quest": "#c8553d", "window": "#7d7d7d"}


def megabytes(count):
    return f"{count / 1e6:9.2f}"


def table(figures):
    full, reuse, rss = figures["full"], figures["reuse"], figures["worker_rss_mib"]
    print(f"\n{figures['model']}, {figures['prompt_tokens']} tokens of prompt")
    print(f"answer: {figures['answer'].strip()}\n")
    if full["equal"]:
        print(f"full: all {full['tokens']} tokens equal plain transformers'")
    else:
        print(
            f"full: equal for {full['tokens']} tokens, then not; plain's two best logits "
            f"are {full.get('gap', float('nan')):.2g} apart there"
        )
    print(f"\n{'system':8} {'budget':>6} {'KL to full':>11} {'same top':>9} {'tokens read':>12}"
          f" {'host MB':>9} {'disk MB':>9} {'wire MB':>9} {'step ms':>8}")  # fmt: skip
    for row in figures["systems"]:
        moved = row["bytes"]
        print(
            f"{row['name']:8} {row['budget']:6} {row['kl']:11.5f} {row['agree']:9.3f} "
            f"{row['tokens_read']:12.0f} {megabytes(moved['host'])} {megabytes(moved['disk'])} "
            f"{megabytes(moved['wire'])} {row['step_seconds'] * 1e3:8.0f}"
        )
    print(f"plane {figures['systems'][0]['plane']}; tokens read per layer and kv head, "
          f"bytes per step; {figures['systems'][0]['positions']} positions")  # fmt: skip
    print(
        f"\nsecond worker: {reuse['cached_tokens']} tokens cached; first token after "
        f"{reuse['reopen_seconds']:.1f} s, {reuse['prefill_seconds']:.1f} s without; answer "
        f"{'equal' if reuse['equal'] else 'NOT equal'}"
    )
    restart = figures["restart"]
    print(
        f"after SIGKILL and a new start: {restart['cached_tokens']} tokens from disk; first "
        f"token after {restart['reopen_seconds']:.1f} s; answer "
        f"{'equal' if restart['equal'] else 'NOT equal'}"
    )
    print(
        "worker's anonymous memory, MiB, at 2K and 7K tokens: "
        f"plain {rss['plain_2k']:.0f} and {rss['plain_7k']:.0f}, "
        f"kvtier {rss['kvtier_2k']:.0f} and {rss['kvtier_7k']:.0f}"
    )


def plot(figures, path):
    figure, (quality, memory) = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for name, colour in COLOURS.items():
        rows = [row for row in figures["systems"] if row["name"] == name]
        quality.plot(
            [row["budget"] for row in rows], [max(row["kl"], 1e-6) for row in rows],
            "o-", color=colour, label=name,
        )  # fmt: skip
    quality.set(
        yscale="log", xlabel="budget (tokens per layer and kv head)",
        ylabel="mean KL to full (nats)",
        title=f"{figures['prompt_tokens']} tokens, {figures['systems'][0]['positions']} positions",
    )  # fmt: skip
    quality.set_xticks(sorted({row["budget"] for row in figures["systems"]}))
    quality.legend(frameon=False)
    rss, model = figures["worker_rss_mib"], figures["worker_model_mib"]
    for name, colour in (("plain", "#7d7d7d"), ("kvtier", COLOURS["kvtier"])):
        grown = [rss[f"{name}_{size}"] - model[f"{name}_{size}"] for size in ("2k", "7k")]
        memory.plot([2048, 7168], grown, "o-", color=colour, label=name)
    memory.set(
        xlabel="tokens held", ylabel="anonymous memory over the model's (MiB)",
        title="memory of the worker", ylim=(0, None), xticks=[2048, 7168],
    )  # fmt: skip
    memory.legend(frameon=False)
    for axes in (quality, memory):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
