"""Goal: a worker has the daemon keep the abstracts that its system needs, no others.
Method: who finds whose rows, and what is refused."""

import pytest

import kvtier.transformers
from models import prompt, tiny

BOTH = ("sketch", "bounds")


@pytest.fixture(scope="module")
def llama():
    return tiny()


def cached(model, socket, inputs, system, **options):
    """How much of the prompt was found; afterwards all full chunks are there."""
    with kvtier.transformers.attach(model, system, socket=socket, **options) as kv:
        cache = kv.cache(**inputs)
        start = cache.get_seq_length()
        model(inputs["input_ids"][:, start:], past_key_values=cache)
        return start


def test_systems_that_need_the_sketch_at_most_share_what_is_stored(llama, socket):
    inputs = prompt(200, seed=500)
    assert cached(llama, socket, inputs, "full") == 0
    for system in ("kvtier", "oracle", "window"):
        assert cached(llama, socket, inputs, system) == 192
    assert cached(llama, socket, inputs, "kvtier", abstracts=("sketch",)) == 192
    assert cached(llama, socket, inputs, "quest") == 0


def test_with_both_named_all_systems_share(llama, socket):
    inputs = prompt(200, seed=501)
    assert cached(llama, socket, inputs, "quest") == 0
    for system in ("full", "kvtier", "oracle", "window", "quest"):
        assert cached(llama, socket, inputs, system, abstracts=BOTH) == 192
    assert cached(llama, socket, inputs, "full", abstracts=BOTH[::-1]) == 192


@pytest.mark.parametrize("system, missing", [("quest", "bounds"), ("kvtier", "sketch")])
def test_a_missing_abstract_is_refused(llama, socket, system, missing):
    kept = tuple(name for name in BOTH if name != missing)
    with kvtier.transformers.attach(llama, system, socket=socket, abstracts=kept) as kv:
        with pytest.raises(kvtier.FailedPreconditionError, match=f"needs the {missing} abstract"):
            kv.cache(**prompt(20, seed=502))


def test_an_unknown_abstract_is_refused(llama, socket):
    with pytest.raises(ValueError, match="use some of sketch, bounds"):
        kvtier.transformers.attach(llama, socket=socket, abstracts=("means",))


def test_a_spec_without_abstracts_has_both(client):
    layers = (kvtier.LayerSpec(2, 1, 16, 16),)
    digest = {
        names: client.register_model(kvtier.ModelSpec(layers, "f32", abstracts=names)).digest
        for names in ((), BOTH, ("sketch",))
    }
    assert digest[()] == digest[BOTH] != digest[("sketch",)]
