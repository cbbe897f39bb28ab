"""Decodes given tokens under a system, through the daemon, and compares with full
attention as plain transformers computes it."""

import torch

import kvtier.transformers
import mass

SINKS, RECENT = 4, 64
PIECE = 512
# Of all systems, so that a text is stored once for them.
ABSTRACTS = ("sketch", "bounds")


def reference(model, texts, scored):
    """[text] of log-probabilities [scored, vocabulary] after each of the last tokens, and
    [text][layer] of keys [kv_head][token][dim]."""
    found, keys = [], []
    for ids in texts:
        output = model(torch.tensor([ids]), logits_to_keep=scored, use_cache=True)
        found.append(output.logits[0].log_softmax(-1))
        keys.append([layer.keys[0] for layer in output.past_key_values.layers])
    return found, keys


def decode(model, texts, scored, plain, system, budget, socket):
    """Scores all texts as one batch.

    plain: what reference() returned
    Returns {kl, agree: [text][position], mass: [text], tokens_read, bytes_touched, plane}."""
    full, keys = plain
    watch = mass.Mass(keys)
    prompts = torch.tensor([ids[:-scored] for ids in texts])
    kls = [[] for _ in texts]
    agrees = [[] for _ in texts]
    with kvtier.transformers.attach(
        model, system, budget, socket=socket, sinks=SINKS, recent=RECENT, abstracts=ABSTRACTS
    ) as kv:
        cache = kv.cache(prompts)
        rest = prompts[:, cache.get_seq_length() :]
        for piece in rest.split(PIECE, 1):
            model(piece, past_key_values=cache, logits_to_keep=1)
        before = kv.stats.as_dict()
        for i in range(scored):
            column = torch.tensor([[ids[i - scored]] for ids in texts])
            with watch.watching():
                logits = model(column, past_key_values=cache).logits
            for t, of_text in enumerate(logits[:, -1].log_softmax(-1)):
                exact = full[t][i]
                kls[t].append(float((exact.exp() * (exact - of_text)).sum()))
                agrees[t].append(float(of_text.argmax() == exact.argmax()))
        after = kv.stats.as_dict()
        cache.close()
    steps = scored * len(texts)
    spent = {name: (after[name] - before[name]) / steps for name in before if name != "plane"}
    heads = model.config.num_key_value_heads * model.config.num_hidden_layers
    return {
        "kl": kls,
        "agree": agrees,
        "mass": watch.means(),
        "tokens_read": spent["tokens_selected"] / heads + SINKS + kv.options.recent,
        "bytes_touched": spent["host_bytes"] + spent["abstract_bytes"] + spent["disk_bytes"],
        "plane": after["plane"],
    }
