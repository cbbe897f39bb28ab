"""Goal: the numpy client gives back what was put in, and every wrong call is a typed
error. Method: random rows of a model with layers of different shapes."""

import time

import numpy as np
import pytest

import kvtier

LAYERS = (kvtier.LayerSpec(4, 2, 16, 16), kvtier.LayerSpec(6, 3, 32, 16))


@pytest.fixture
def model(client, salt):
    return client.register_model(kvtier.ModelSpec(LAYERS, "f32", salt))


def rows(model, layer, count, seed=0):
    """key, value: [kv_head][token][dim]."""
    spec = model.spec.layers[layer]
    random = np.random.default_rng(seed + layer)
    if model.numpy_dtype == np.uint16:
        make = lambda dim: random.integers(0, 0x7F00, (spec.kv_heads, count, dim), np.uint16)
    else:
        make = lambda dim: random.standard_normal((spec.kv_heads, count, dim)).astype(
            model.numpy_dtype
        )
    return make(spec.key_dim), make(spec.value_dim)


def filled(client, model, count=200, ids=range(200), **options):
    sequence = client.open_sequence(model, ids, **{"system": "full", **options})
    for layer in range(len(LAYERS)):
        progress = sequence.append(layer, 0, *rows(model, layer, count))
    assert progress == (count // 64 * 64, count)
    return sequence


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])
def test_rows_come_back(client, salt, dtype):
    model = client.register_model(kvtier.ModelSpec(LAYERS, dtype, salt))
    sequence = filled(client, model)
    assert sequence.seal() == (192, 8)
    for layer in range(len(LAYERS)):
        parts = list(sequence.read(10, 185, layer, 1))
        got = np.concatenate([part for _, _, part in parts], 1)
        wanted = np.concatenate(rows(model, layer, 200), 2)[:, 10:195]
        assert np.array_equal(got, wanted)
    sequence.close()


def test_prefix_is_found_again(client, model):
    filled(client, model).close()
    assert client.open_sequence(model, range(200)).cached_tokens == 192
    assert client.open_sequence(model, range(192), cached_tokens_max=191).cached_tokens == 128
    assert client.open_sequence(model, [9, *range(199)]).cached_tokens == 0


def test_oracle_selects_the_best_tokens(client, model):
    sequence = filled(client, model, system="oracle", budget=10)
    key, _ = rows(model, 1, 200)
    query = np.random.default_rng(5).standard_normal((6, 32)).astype(np.float32)
    selection = sequence.retrieve(1, query, 4, 192)
    logits = np.einsum("hgd,hnd->hgn", query.reshape(3, 2, 32), key[:, 4:192]) / np.sqrt(32)
    shares = np.exp(logits - logits.max(-1, keepdims=True))
    shares = (shares / shares.sum(-1, keepdims=True)).mean(1)
    for head in range(3):
        best = np.sort(np.argsort(-shares[head])[:10] + 4)
        assert np.array_equal(np.sort(selection.tokens[head]), best)
        assert np.array_equal(selection.rows[head][:, :32], key[head, selection.tokens[head]])


def test_rest_and_selection_make_full_attention(client, model):
    """The kvtier system's estimate is close; with everything selected there is no rest."""
    sequence = filled(client, model, system="kvtier", budget=1000)
    query = np.random.default_rng(6).standard_normal((6, 32)).astype(np.float32)
    selection = sequence.retrieve(1, query, 0, 192)
    assert all(len(tokens) == 192 for tokens in selection.tokens)
    assert selection.rest_lse is None or np.isneginf(selection.rest_lse).all()


def test_long_appends_are_split(client, salt):
    layers = (kvtier.LayerSpec(8, 8, 128, 128),)
    model = client.register_model(kvtier.ModelSpec(layers, "f32", salt))
    count = 4096  # 32 MiB of rows, twice the limit of a message
    key = np.arange(8 * count * 128, dtype=np.float32).reshape(8, count, 128)
    sequence = client.open_sequence(model, range(count), system="full")
    assert sequence.append(0, 0, key, -key) == (count, count)
    got = np.concatenate([part for _, _, part in sequence.read(0, count)], 1)
    assert np.array_equal(got, np.concatenate([key, -key], 2))


def test_a_reader_may_take_its_time(client, salt):
    model = client.register_model(kvtier.ModelSpec((kvtier.LayerSpec(8, 8, 128, 128),), "f32", salt))
    rows = np.zeros((8, 6144, 128), np.float32)
    sequence = client.open_sequence(model, range(6144), system="full")
    sequence.append(0, 0, rows, rows)
    kept, client.timeout = client.timeout, 2.0
    try:
        read = 0
        for _, _, part in sequence.read(0, 6144):
            begin = time.monotonic()
            while read < 2 * part.shape[1] and time.monotonic() < begin + 1.5:
                pass  # its own computing
            read += part.shape[1]
    finally:
        client.timeout = kept
    assert read == 6144


def test_an_orphan_that_can_not_be_closed_is_nobodys_error(client, model):
    lost = client.open_sequence(model, range(10), system="full")
    lost.close()
    client.orphan(lost)
    assert client.open_sequence(model, range(10), system="full").open


def test_truncate_and_fork(client, model):
    sequence = filled(client, model)
    twin = sequence.fork()
    assert sequence.truncate(100) == (64, 36)
    assert twin.seal() == (192, 8)
    key, value = rows(model, 0, 200)
    twin.append(0, 200, key[:, :5], value[:, :5])
    twin.close()
    got = np.concatenate([part for _, _, part in sequence.read(0, 100, 0, 1)], 1)
    assert np.array_equal(got[..., :16], key[:, :100])


def wrong_calls(client, model):
    sequence = filled(client, model)
    key, value = rows(model, 0, 10)
    query = np.ones((4, 16), np.float32)
    nan = np.full_like(query, np.nan)
    full = client.open_sequence(model, range(10), system="full")
    gone = client.open_sequence(model, range(10), system="full")
    gone.close()
    invalid, state = kvtier.InvalidArgumentError, kvtier.FailedPreconditionError
    return {
        "head count": (invalid, lambda: full.append(0, 0, key[:1], value[:1])),
        "key dim": (invalid, lambda: full.append(0, 0, key[..., :8], value)),
        "layer": (invalid, lambda: full.append(7, 0, key, value)),
        "order": (state, lambda: full.append(0, 5, key, value)),
        "other ids": (invalid, lambda: full.append(0, 0, key, value, token_ids=[9] * 10)),
        "closed": (kvtier.NotFoundError, lambda: gone.append(0, 0, key, value)),
        "NaN": (invalid, lambda: sequence.retrieve(0, nan, 0, 128)),
        "query shape": (invalid, lambda: sequence.retrieve(0, query[:3], 0, 128)),
        "unsealed": (invalid, lambda: sequence.retrieve(0, query, 0, 200)),
        "read beyond": (invalid, lambda: list(sequence.read(0, 201))),
        "truncate": (invalid, lambda: sequence.truncate(201)),
        "system": (invalid, lambda: client.open_sequence(model, [1], system="magic", budget=1)),
        "budget 0": (invalid, lambda: client.open_sequence(model, [1], system="kvtier", budget=0)),
        "durable": (state, lambda: sequence.seal(durable=True)),
    }


def test_wrong_calls_are_typed_errors_and_harm_nothing(client, model):
    for name, (error, call) in wrong_calls(client, model).items():
        print(name)  # shown when it fails
        with pytest.raises(error) as raised:
            call()
        assert len(str(raised.value)) > 10, name
    assert filled(client, model, ids=range(1000, 1200)).seal() == (192, 8)


def test_wrong_dtype_is_caught_before_it_is_sent(client, model):
    sequence = client.open_sequence(model, range(10), system="full")
    key, value = rows(model, 0, 10)
    with pytest.raises(ValueError, match="float64"):
        sequence.append(0, 0, key.astype(np.float64), value.astype(np.float64))
    with pytest.raises(ValueError, match="kv_head"):
        sequence.append(0, 0, key[0], value[0])


def test_message_over_the_limit(client, model):
    from kvtier.v1 import worker_pb2

    request = worker_pb2.AppendRequest(session_id=client.session_id)
    entry = request.entries.add(sequence_id=1, layer=0, token_count=1)
    entry.inline.key = bytes(client.message_bytes_max + 1)
    with pytest.raises(kvtier.ResourceExhaustedError):
        client.call("Append", request)


def test_closed_client(socket):
    client = kvtier.Client(socket)
    client.close()
    with pytest.raises(kvtier.UnavailableError, match="closed"):
        client.call("Close", None)
