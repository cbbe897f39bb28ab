"""Goal: kvtierd neither grows nor forgets, however much goes through it. Method: a daemon
with little memory and disk; sessions of two models come and go, extend, fork, shorten, read
and select documents, old and new, until many times the disk's capacity was written; it is
killed now and then. Every byte read is compared, and after a warm-up memory, files,
descriptors and bytes on disk stay below a bound. KVTIER_SOAK_SECONDS: how long, 12 if unset."""

import os
import random
import time

import numpy as np

import kvtier

SECONDS = float(os.environ.get("KVTIER_SOAK_SECONDS", "12"))
MIB = 1 << 20
DISK_BYTES = 64 * MIB
# Of the disk's capacity: before anything is compared with it, and at the end.
WARM_UP, THROUGH = (2, 10) if SECONDS >= 600 else (0.5, 1.5)
# What may come on top of the most that was seen until the warm-up's end.
SLACK = {"memory": 16 * MIB, "files": 16, "descriptors": 24}
TOKENS = 256
MODELS = (
    (kvtier.LayerSpec(8, 2, 64, 64), kvtier.LayerSpec(8, 2, 64, 64)),
    (kvtier.LayerSpec(4, 1, 32, 32), kvtier.LayerSpec(6, 2, 64, 32)),
)
KILLS = 4


def ids(name):
    return [name // 3] * 128 + [name] * (TOKENS - 128)


def document(layers, name, layer):
    """[kv_head][token][key, value]; by threes they share their first half."""
    spec = layers[layer]
    shape = (spec.kv_heads, TOKENS // 2, spec.key_dim + spec.value_dim)
    halves = ((0, name // 3), (1, name))
    return np.concatenate(
        [np.random.default_rng((layer, *half)).random(shape, np.float32) for half in halves], 1
    )


class Sizes:
    """What must not grow, of a daemon and its directory."""

    def __init__(self):
        self.most = {}
        self.warm = None

    def look(self, daemon, disk, written):
        process = f"/proc/{daemon.process.pid}"
        status = dict(line.split(":", 1) for line in open(f"{process}/status"))
        kib = sum(int(status[key].split()[0]) for key in ("RssAnon", "RssShmem"))
        paths = []
        for folder, _, names in os.walk(disk):
            paths += [os.path.join(folder, name) for name in names]
        used = 0
        for path in paths:
            try:
                used += os.stat(path).st_blocks * 512
            except FileNotFoundError:  # the catalog's come and go
                pass
        assert used <= DISK_BYTES, f"{used} bytes on disk"
        now = {
            "memory": kib * 1024,
            "files": len(paths),
            "descriptors": len(os.listdir(f"{process}/fd")),
        }
        self.most = {key: max(value, self.most.get(key, 0)) for key, value in now.items()}
        if written < WARM_UP * DISK_BYTES:
            return
        self.warm = self.warm or dict(self.most)
        for key, value in now.items():
            assert value <= self.warm[key] + SLACK[key], (
                f"{key} grew from {self.warm[key]} to {value} after {written} bytes"
            )


class Soak:
    def __init__(self, daemon, seed):
        self.daemon, self.random = daemon, random.Random(seed)
        self.salt = os.urandom(8)
        self.written = self.read = self.names = 0

    def expect(self, sequence, layers, name, count):
        for layer in range(len(layers)):
            parts = [part for _, _, part in sequence.read(0, count, layer, 1)]
            got = np.concatenate(parts, 1)
            wanted = document(layers, name, layer)[:, :count]
            assert np.array_equal(got, wanted), f"document {name}, layer {layer}"
            self.read += got.nbytes

    def visit(self, client):
        layers = self.random.choice(MODELS)
        model = client.register_model(kvtier.ModelSpec(layers, "f32", self.salt))
        old = self.names > 0 and self.random.random() < 0.4
        if not old:
            self.names += 1
        # Old ones that are on disk still, and some that had to go.
        name = max(0, self.names - self.random.randrange(1, 200)) if old else self.names
        sequence = client.open_sequence(model, ids(name), system="kvtier", budget=32)
        cached = sequence.cached_tokens
        if cached:
            self.expect(sequence, layers, name, cached)
        for layer, spec in enumerate(layers) if cached < TOKENS else ():
            rows = document(layers, name, layer)[:, cached:]
            sequence.append(layer, cached, rows[..., : spec.key_dim], rows[..., spec.key_dim :])
            self.written += rows.nbytes
        if self.random.random() < 0.7:
            sequence.seal(durable=True)
        sequence.retrieve(0, np.ones((layers[0].query_heads, layers[0].key_dim), np.float32), 4, 128)
        if self.random.random() < 0.3:
            fork = sequence.fork()
            shorter = self.random.randrange(1, TOKENS)
            fork.truncate(shorter)
            self.expect(fork, layers, name, shorter)
            fork.close()
        self.expect(sequence, layers, name, TOKENS)
        if self.random.random() < 0.8:
            sequence.close()  # else the session's end does

    def session(self):
        with kvtier.Client(self.daemon.socket()) as client:
            for _ in range(self.random.randrange(1, 12)):
                self.visit(client)


def test_nothing_grows(start_daemon, tmp_path_factory):
    disk = tmp_path_factory.mktemp("soak") / "kv"
    daemon = start_daemon(
        capacity="48MiB",
        extra=f'region = "4MiB"\n[disk]\ndirectory = "{disk}"\ncapacity = "{DISK_BYTES}B"\n',
    )
    seed = int.from_bytes(os.urandom(4), "little")
    print(f"seed {seed}")
    soak, sizes = Soak(daemon, seed), Sizes()
    begin, kills = time.monotonic(), 0
    while (passed := time.monotonic() - begin) < SECONDS or soak.written < THROUGH * DISK_BYTES:
        assert passed < 3 * SECONDS + 120, f"only {soak.written} bytes were written"
        soak.session()
        sizes.look(daemon, disk, soak.written)
        if passed > (kills + 1) * SECONDS / (KILLS + 1):
            kills += 1
            daemon.kill()
            daemon.start()
    assert sizes.warm, "it ended before it was warm"
    print(
        f"{passed:.0f} s, {soak.names} documents, {soak.written / MIB:.0f} MiB written, "
        f"{soak.read / MIB:.0f} read, {kills} kills; most: {sizes.most}; warm: {sizes.warm}"
    )
