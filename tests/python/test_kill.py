"""Goal: what kvtierd acknowledged as durable survives SIGKILL at any time, and nothing that
is found after it is wrong. Method: three workers append, read, seal and select; the daemon is
killed after a random while, started again, and everything that this process knows of is
read back. KVTIER_KILL_CYCLES: how many times, 10 if unset."""

import os
import random
import threading

import numpy as np
import pytest

import kvtier

CYCLES = int(os.environ.get("KVTIER_KILL_CYCLES", "10"))
LAYERS = (kvtier.LayerSpec(2, 1, 32, 32), kvtier.LayerSpec(4, 2, 16, 16))
TOKENS = 256
CHUNK = 64


def rows(model, name, layer):
    """key, value: [kv_head][token][dim] of the document that is named by a number."""
    spec = model.spec.layers[layer]
    make = np.random.default_rng((name, layer))
    return tuple(
        make.standard_normal((spec.kv_heads, TOKENS, dim), np.float32)
        for dim in (spec.key_dim, spec.value_dim)
    )


def ids(name):
    """Documents share their first two chunks by fours."""
    return [name // 4] * 128 + [name] * (TOKENS - 128)


def shared(name):
    """Whose rows a document's first two chunks are: both would be acknowledged."""
    return name // 4 * 4


def document(model, name, layer):
    first, own = rows(model, shared(name), layer), rows(model, name, layer)
    return tuple(np.concatenate([a[:, :128], b[:, 128:]], 1) for a, b in zip(first, own))


def expect(sequence, model, name, count):
    for layer in range(len(LAYERS)):
        wanted = np.concatenate(document(model, name, layer), 2)[:, :count]
        got = np.concatenate([part for _, _, part in sequence.read(0, count, layer, 1)], 1)
        assert np.array_equal(got, wanted), f"document {name}, layer {layer}"


class Load:
    """One worker. Ends when the daemon does; anything but its loss is kept as an error."""

    def __init__(self, socket, salt, names):
        self.socket, self.salt, self.names = socket, salt, names
        self.tried, self.durable, self.error = [], [], None
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        try:
            with kvtier.Client(self.socket) as client:
                model = client.register_model(kvtier.ModelSpec(LAYERS, "f32", self.salt))
                for name in self.names:
                    self.work(client, model, name)
        except kvtier.UnavailableError:
            pass
        except Exception as error:  # reported by the test
            self.error = error

    def work(self, client, model, name):
        self.tried.append(name)
        sequence = client.open_sequence(model, ids(name), system="kvtier", budget=32)
        cached = sequence.cached_tokens
        for layer in range(len(LAYERS)):
            key, value = document(model, name, layer)
            sequence.append(layer, cached, key[:, cached:], value[:, cached:])
        if name % 3:
            sequence.seal(durable=True)
            self.durable.append(name)
        query = np.ones((2, 32), np.float32)
        sequence.retrieve(0, query, 4, TOKENS - CHUNK)
        expect(sequence, model, name, TOKENS)
        sequence.close()
        if self.durable and name % 5 == 0:
            again = client.open_sequence(model, ids(self.durable[0]))
            expect(again, model, self.durable[0], again.cached_tokens)
            again.close()


@pytest.fixture
def disk(tmp_path_factory):
    # What is in memory is less than what is written, so pages come and go.
    directory = tmp_path_factory.mktemp("disk")
    return f'[disk]\ndirectory = "{directory}/kv"\ncapacity = "1GiB"\n'


def test_what_was_acknowledged_survives_any_kill(start_daemon, disk):
    daemon = start_daemon(capacity="64MiB", extra=disk)
    seed = int.from_bytes(os.urandom(4), "little")
    moments = random.Random(seed)
    durable, cycles, salt = set(), [], os.urandom(8)
    for cycle in range(CYCLES):
        about = f"cycle {cycle} of seed {seed}"
        first = cycle * 30_000
        loads = [
            Load(daemon.socket(), salt, range(first + i * 10_000, first + (i + 1) * 10_000))
            for i in range(3)
        ]
        loads[0].thread.join(moments.uniform(0.05, 1.0))
        daemon.kill()
        for load in loads:
            load.thread.join()
            assert load.error is None, about
            durable.update(load.durable)
        cycles.append([name for load in loads for name in load.tried])
        daemon.start()
        with kvtier.Client(daemon.socket()) as client:
            model = client.register_model(kvtier.ModelSpec(LAYERS, "f32", salt))
            # Older ones may have had to make room.
            for name in sum(cycles[-3:], []):
                sequence = client.open_sequence(model, ids(name))
                cached = sequence.cached_tokens
                assert cached == TOKENS or name not in durable, f"{about}: {name} is lost"
                if cached:
                    expect(sequence, model, name, cached)
                sequence.close()
    assert durable, "the kills came before anything was acknowledged"
    assert len(set(sum(cycles, []))) > len(durable)
