"""attach(): the one call a user makes, and what it returns."""

import dataclasses
import inspect
import sys
import threading
import weakref

import torch

from kvtier.client import Client
from kvtier.spec import ModelSpec
from kvtier.transformers import attention, support
from kvtier.transformers.cache import KvtierCache, mask_pads
from kvtier.transformers.digest import model_digest
from kvtier.transformers.forward import Forward

PROMPTS = ("exact", "selected")

_users = weakref.WeakKeyDictionary()  # model -> [attached, former implementation]
_users_lock = threading.Lock()


@dataclasses.dataclass(frozen=True)
class Options:
    system: str
    budget: int
    sinks: int
    recent: int
    dense_layers: int | None
    layers: int
    prompt: str

    @property
    def computed_under(self) -> bytes:
        """What sparse attention depends on beyond system, budget and dense layers."""
        prompt = b"" if self.prompt == "exact" else b" prompt " + self.prompt.encode()
        return b"sinks %d recent %d" % (self.sinks, self.recent) + prompt

    @property
    def asks(self) -> bool:
        """Whether the daemon is asked for selections at all."""
        return self.system != "window" or bool(self.dense_layers)

    def drops(self, candidates: int) -> bool:
        """Whether attention over so many candidates leaves some unread."""
        if self.system == "full" or (self.dense_layers or 0) >= self.layers:
            return False
        return candidates > self.budget


class Stats:
    """Totals since attach(). Thread-safe."""

    FIELDS = (
        "rpcs",
        "retrievals",
        "tokens_selected",
        "wire_bytes",
        "abstract_bytes",
        "host_bytes",
        "disk_bytes",
        "read_bytes",
        "appended_bytes",
        "cached_tokens",
    )
    plane = "portable"

    def __init__(self):
        self._lock = threading.Lock()
        self._totals = dict.fromkeys(self.FIELDS, 0)  # guarded by _lock

    def add(self, **counts):
        with self._lock:
            for name, count in counts.items():
                self._totals[name] += count

    def as_dict(self) -> dict:
        with self._lock:
            return {"plane": self.plane, **self._totals}

    def __getattr__(self, name):
        if name in Stats.FIELDS:
            with self._lock:
                return self._totals[name]
        raise AttributeError(name)

    def __repr__(self):
        return f"Stats({self.as_dict()})"


class Attached:
    """A model whose KV cache is in kvtierd. Use attach() to make one.

    Caches of one model may be used in several threads, each cache in one at a time."""

    def __init__(self, model, client, own_client, options, abstracts):
        self.model = model
        self.client = client
        self.options = options
        self.stats = Stats()
        self._own_client = own_client
        self._caches = weakref.WeakSet()
        self._handles = []
        generation = getattr(model, "generation_config", None)
        self.pad_token_id = getattr(generation, "pad_token_id", None)
        if self.pad_token_id is None:
            self.pad_token_id = getattr(model.config, "pad_token_id", None)
        self._takes_positions = "position_ids" in inspect.signature(model.forward).parameters
        self._layers = support.layer_specs(model)
        self._abstracts = abstracts
        self._register_model()
        self._install()

    def _register_model(self):
        spec = ModelSpec(
            layers=self._layers,
            dtype=support.DTYPES[self.model.dtype],
            salt=model_digest(self.model),
            label=type(self.model).__name__,
            abstracts=self._abstracts,
        )
        return self.client.register_model(spec)

    def cache(self, input_ids=None, attention_mask=None) -> KvtierCache:
        """A cache for generate(past_key_values=...) or for calls of the model.

        With input_ids (padding on the left, and its attention_mask), what the daemon
        has of their beginning is not computed again, and the rest, being a prompt, is
        computed as attach(prompt=...) says. Without, several tokens at a time are
        computed exactly, and one is a decode step, also where it is the last piece of a
        prompt. Close the cache, or let it be garbage-collected."""
        if not self._handles:
            raise RuntimeError("kvtier was detached from this model: attach() again")
        cache = KvtierCache(self, self._register_model(), input_ids, attention_mask)
        self._caches.add(cache)
        self.stats.add(cached_tokens=sum(cache.cached_tokens))
        return cache

    # Hooks.

    def _install(self):
        attention.register()
        with _users_lock:
            entry = _users.setdefault(self.model, [[], self.model.config._attn_implementation])
            entry[0].append(weakref.ref(self))
        try:
            self.model.set_attn_implementation(attention.NAME)
            support.check_switched(self.model)
        except BaseException:
            self._restore_implementation()
            raise
        self._handles = [
            self.model.register_forward_pre_hook(self._before, with_kwargs=True),
            self.model.register_forward_hook(self._after, with_kwargs=True, always_call=True),
        ]

    def _before(self, model, args, kwargs):
        cache = kwargs.get("past_key_values")
        if not isinstance(cache, KvtierCache) or cache.attached is not self:
            return None
        attention.STATE.handed_over = None
        attention.STATE.forward = None
        if cache.broken:
            raise cache.broken.with_traceback(None)
        ids = kwargs.get("input_ids", args[0] if args else None)
        if ids is None or ids.ndim != 2:
            raise ValueError("kvtier needs input_ids, [batch, token]; inputs_embeds have no names")
        if kwargs.get("output_attentions"):
            raise ValueError("kvtier does not serve output_attentions")
        batch = ids.shape[0]
        for row in cache.rows:
            self.client.check_session(row.sequence.session)
        if cache.rows and len(cache.rows) != batch:
            cache.expand(batch)
        if cache.new and cache.length and cache.is_whole_prompt(ids.tolist()):
            ids, args, kwargs = self._without_reused(cache, ids, args, kwargs)
        id_lists, tokens = ids.tolist(), ids.shape[1]
        self._settle(cache, id_lists, kwargs.get("attention_mask"), tokens)
        kwargs = self._positions(cache, kwargs, batch, tokens, ids.device)
        cache.set_broken("a forward through it failed")
        try:
            attention.STATE.forward = Forward(cache, id_lists)
        except BaseException as error:
            cache.set_broken("a forward through it failed", error)
            raise
        return args, kwargs

    def _after(self, model, args, kwargs, output):
        forward = attention.STATE.forward
        if forward is None or forward.cache is not kwargs.get("past_key_values"):
            return
        attention.STATE.forward = None
        if output is None:  # the forward raised; torch calls this while it handles that
            forward.cache.set_broken("a forward through it failed", sys.exc_info()[1])
            return
        if attention.STATE.handed_over is not None:
            raise RuntimeError("the last layer did not attend with kvtier")
        forward.finish()
        forward.cache.broken = None

    def _without_reused(self, cache, ids, args, kwargs):
        """The whole prompt came although the cache reports its beginning (assisted
        decoding does that). Where the caller doesn't want the logits of the beginning it
        is left out; otherwise nothing is reused."""
        keep = kwargs.get("logits_to_keep")
        if not isinstance(keep, int) or not 0 < keep <= ids.shape[1] - cache.length:
            cache.rewind()
            return ids, args, kwargs
        ids = ids[:, cache.length :]
        kwargs = {**kwargs, "input_ids": ids}
        if kwargs.get("position_ids") is not None:
            kwargs["position_ids"] = kwargs["position_ids"][..., cache.length :]
        return ids, args[1:], kwargs

    def _settle(self, cache, ids, attention_mask, tokens):
        """Makes the rows agree with the padding and the tokens that really came."""
        end = cache.length + tokens
        if attention_mask is None:
            pads = [0] * len(ids)
        elif tokens == 1 and cache.rows and attention_mask.shape == (len(ids), end):
            pads = (end - attention_mask.sum(1)).tolist()
        else:
            pads = mask_pads(attention_mask, end)
        if not cache.rows:
            cache.open_rows(pads, [[] for _ in ids], reuse=False)
            return
        wrong = [
            (row, pad) for row, pad in zip(cache.rows, pads) if pad != min(row.pads, end)
        ]
        if wrong and all(not r.prompt_ids and not r.ids and p >= cache.length for r, p in wrong):
            for row, pad in wrong:
                row.pads = pad
        elif wrong:
            cache.reopen(pads)
        elif cache.new and not all(
            row.matches_prompt(row_ids[max(0, row.pads - cache.length) :])
            for row, row_ids in zip(cache.rows, ids)
        ):
            cache.reopen(pads)

    def _positions(self, cache, kwargs, batch, tokens, device):
        """Keys are stored after RoPE, so a token's position must be its index."""
        pads = torch.tensor([row.pads for row in cache.rows], device=device).unsqueeze(1)
        columns = torch.arange(cache.length, cache.length + tokens, device=device)
        want = (columns - pads).clamp_(min=0)
        given = kwargs.get("position_ids")
        if given is None:
            if self._takes_positions and any(row.pads for row in cache.rows):
                kwargs = {**kwargs, "position_ids": want}
        elif given.ndim != 2 or not (given.to(device) == want).all():
            raise ValueError("kvtier serves position_ids that count a row's tokens from 0")
        return kwargs

    # The end.

    def detach(self):
        """Gives the model its former attention back. Its caches can't be used then."""
        for handle in self._handles:
            handle.remove()
        if self._handles:
            self._handles = []
            self._restore_implementation()

    def _restore_implementation(self):
        with _users_lock:
            entry = _users[self.model]
            entry[0] = [ref for ref in entry[0] if ref() is not None and ref() is not self]
            if entry[0]:
                return
            del _users[self.model]
        self.model.set_attn_implementation(entry[1])

    def close(self):
        """Closes all caches, detaches, and closes the connection if attach() made it."""
        try:
            for cache in list(self._caches):
                cache.close()
        finally:
            self.detach()
            if self._own_client:
                self.client.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


def attach(
    model,
    system="kvtier",
    budget=None,
    socket=None,
    namespace="default",
    sinks=4,
    recent=64,
    dense_layers=None,
    prompt="exact",
    abstracts=None,
    client=None,
) -> Attached:
    """Has `model` keep its KV cache in kvtierd.

    system, budget: how tokens are selected at each decode step and how many, per layer
        and kv head, beside sinks and recent; None: 256. "window" adds them to `recent`
        (None: 0), "full" reads everything
    sinks, recent: the first and the latest tokens, which are always read
    dense_layers: first layers that read everything; None: as the system does
    prompt: how a prompt's tokens are computed behind a cached prefix, and those of later
        turns: "exact" reads all that is before them; "selected" reads what the system
        selects, and their rows are then found only by those who attach alike. What has
        nothing cached before it is exact
    abstracts: what the daemon keeps of each page to select by, "sketch" (for "kvtier"),
        "bounds" (for "quest"); workers find each other's rows only where it is equal.
        None: both for "quest", else the sketch alone
    Raises UnsupportedModelError, UnavailableError; ValueError for what can't be meant.
    """
    support.check(model)
    if prompt not in PROMPTS:
        raise ValueError(f"prompt {prompt!r}: use one of {', '.join(PROMPTS)}")
    if abstracts is None:
        abstracts = ("sketch", "bounds") if system == "quest" else ("sketch",)
    if sinks < 0 or recent < 1:
        raise ValueError(f"sinks {sinks} must be at least 0 and recent {recent} at least 1")
    if system == "window":
        recent += budget or 0
    if system in ("full", "window"):
        budget = 0
    options = Options(
        system=system,
        budget=256 if budget is None else budget,
        sinks=sinks,
        recent=recent,
        dense_layers=dense_layers,
        layers=model.config.get_text_config(decoder=True).num_hidden_layers,
        prompt=prompt,
    )
    own = client is None
    client = client or Client(socket, namespace)
    try:
        return Attached(model, client, own, options, tuple(abstracts))
    except BaseException:
        if own:
            client.close()
        raise
