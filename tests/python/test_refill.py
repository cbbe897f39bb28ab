"""Goal: a damaged chunk is a typed error that says what to do, and doing it mends it. Method:
a daemon of the test's own, started again over a segment of which one row was changed."""

import numpy as np
import pytest

import kvtier

LAYERS = (kvtier.LayerSpec(2, 1, 32, 32), kvtier.LayerSpec(4, 2, 16, 16))
TOKENS, CHUNK, BAD = 256, 64, 1


def rows(layer):
    spec = LAYERS[layer]
    make = np.random.default_rng(layer)
    return tuple(
        make.standard_normal((spec.kv_heads, TOKENS, dim), np.float32)
        for dim in (spec.key_dim, spec.value_dim)
    )


def of_chunk(chunk):
    part = slice(chunk * CHUNK, (chunk + 1) * CHUNK)
    return [(key[:, part], value[:, part]) for key, value in map(rows, range(len(LAYERS)))]


def expect_all(sequence):
    for layer in range(len(LAYERS)):
        got = np.concatenate([part for _, _, part in sequence.read(0, TOKENS, layer, 1)], 1)
        assert np.array_equal(got, np.concatenate(rows(layer), 2)), f"layer {layer}"


def damage(directory, row):
    """Changes one byte of the row, wherever it is on disk."""
    found = 0
    for path in directory.glob("segment-*"):
        with open(path, "r+b") as file:
            at = file.read().find(row.tobytes())
            if at >= 0:
                file.seek(at)
                file.write(bytes([row.tobytes()[0] ^ 1]))
                found += 1
    assert found == 1


@pytest.fixture
def damaged(start_daemon, tmp_path, salt):
    """A sequence whose chunk BAD is damaged on disk, and in no memory."""
    disk = f'[disk]\ndirectory = "{tmp_path}/kv"\ncapacity = "256MiB"\nscrub_rate = 0\n'
    daemon = start_daemon(extra=disk)
    spec = kvtier.ModelSpec(LAYERS, "f32", salt)
    with kvtier.Client(daemon.socket()) as client:
        model = client.register_model(spec)
        sequence = client.open_sequence(model, range(TOKENS), system="full")
        for layer in range(len(LAYERS)):
            sequence.append(layer, 0, *rows(layer))
        sequence.seal(durable=True)
    daemon.kill()
    daemon.start()
    damage(tmp_path / "kv", rows(1)[0][1, BAD * CHUNK + 5])
    with kvtier.Client(daemon.socket()) as client:
        sequence = client.open_sequence(client.register_model(spec), range(TOKENS), system="full")
        assert sequence.cached_tokens == TOKENS
        yield sequence


def test_a_damaged_chunk_is_told_and_refilled(damaged):
    with pytest.raises(kvtier.DataLossError, match="chunk 1, tokens 64 to 127, .*Refill"):
        expect_all(damaged)
    query = np.ones((2, 32), np.float32)
    with pytest.raises(kvtier.FailedPreconditionError, match="hole at chunk 1: tokens 64 to 127"):
        damaged.retrieve(1, np.ones((4, 16), np.float32), 0, TOKENS)
    damaged.refill(BAD, of_chunk(BAD))
    damaged.refill(BAD, of_chunk(BAD))  # as after an answer that got lost
    expect_all(damaged)
    selection = damaged.retrieve(0, query, 0, TOKENS)
    assert np.array_equal(selection.rows[0], np.concatenate(rows(0), 2)[0])
    damaged.seal(durable=True)
    again = damaged.client.open_sequence(damaged.model, range(TOKENS), system="full")
    assert again.cached_tokens == TOKENS
    expect_all(again)


def test_what_is_not_that_chunk_is_refused(damaged):
    with pytest.raises(kvtier.DataLossError):
        expect_all(damaged)
    with pytest.raises(kvtier.InvalidArgumentError, match="layer 1 is missing"):
        damaged.refill(BAD, of_chunk(BAD)[:1])
    with pytest.raises(kvtier.InvalidArgumentError, match="63 tokens"):
        damaged.refill(BAD, [(key[:, 1:], value[:, 1:]) for key, value in of_chunk(BAD)])
    with pytest.raises(kvtier.InvalidArgumentError, match="out of range"):
        damaged.refill(4, of_chunk(BAD))
    with pytest.raises(kvtier.InvalidArgumentError, match="want"):
        damaged.refill(BAD, of_chunk(BAD)[::-1])
    with pytest.raises(kvtier.FailedPreconditionError, match="chunk 0 is no hole"):
        damaged.refill(0, of_chunk(BAD))
    long = np.zeros((1, 1 << 17, 32), np.float32)
    with pytest.raises(kvtier.ResourceExhaustedError, match="limits.message_max"):
        damaged.refill(BAD, [(long, long)])
    with pytest.raises(kvtier.FailedPreconditionError, match="hole at chunk 1"):
        expect_all(damaged)
    damaged.refill(BAD, of_chunk(BAD))
    expect_all(damaged)
