"""Goal: the tasks are what they claim to be.
Method: a tokenizer that gives a token a character."""

import pytest

import texts


class Letters:
    def __call__(self, text):
        return {"input_ids": [ord(letter) for letter in text]}


@pytest.fixture
def letters(monkeypatch):
    monkeypatch.setattr(texts, "handbook", lambda: "".join(chr(97 + i % 26) for i in range(200_000)))
    return Letters()


def test_copy_repeats_a_passage_of_the_prompt(letters):
    (ids,) = texts.texts(letters, "copy", 1, 1000, 100)
    assert ids[1000:] == ids[400:500]


def test_needles_are_in_the_prompt_and_asked_in_another_order(letters):
    (ids,) = texts.texts(letters, "needles", 1, 6000, 256)
    prompt, asked = ("".join(map(chr, part)) for part in (ids[:6000], ids[6000:]))
    lines = [line for line in asked.splitlines()[1:-1] if line]
    assert len(lines) >= 5
    places = [prompt.index(line) for line in lines]
    assert places != sorted(places)


def test_texts_of_a_kind_differ_and_have_the_length_asked_for(letters):
    found = texts.texts(letters, "prose", 4, 512, 64)
    assert {len(ids) for ids in found} == {576}
    assert len({tuple(ids) for ids in found}) == 4


def test_needles_that_leave_no_filler_are_refused(letters):
    with pytest.raises(ValueError, match="leave no filler"):
        texts.texts(letters, "needles", 1, 1000, 256)


def test_a_book_that_is_too_short_is_refused(monkeypatch):
    monkeypatch.setattr(texts, "handbook", lambda: "short")
    with pytest.raises(ValueError, match="too few"):
        texts.texts(Letters(), "prose", 1, 100, 10)
