"""Texts to score on: real prose with a task at the end, as token ids.

All prose is the English Debian handbook (Debian's package debian-handbook), its pages in
the order of their names, HTML stripped. A text is `prompt` tokens that are prefilled and
`scored` tokens that are decoded one by one.

    prose     goes on as the book does
    copy      repeats a passage from the middle of the prompt
    needles   lines "The code of X is N." are spread over the prompt; some of them are
              repeated in another order
"""

import html.parser
import pathlib
import random

HANDBOOK = pathlib.Path("/usr/share/doc/debian-handbook/html/en-US")
KINDS = ("prose", "copy", "needles")
# First tokens of the book that a text takes, by kind; texts don't overlap.
FIRST = {"prose": 40_000, "copy": 80_000, "needles": 120_000}
STRIDE = 8_000
NEEDLES = 110


class _Text(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.skipped = 0
        self.parts = []

    def handle_starttag(self, tag, attributes):
        self.skipped += tag in ("script", "style", "head")

    def handle_endtag(self, tag):
        self.skipped -= tag in ("script", "style", "head")

    def handle_data(self, data):
        if not self.skipped:
            self.parts.append(data)


def handbook() -> str:
    if not HANDBOOK.is_dir():
        raise SystemExit(f"no {HANDBOOK}: apt install debian-handbook")
    pages = []
    for path in sorted(HANDBOOK.glob("*.html")):
        parser = _Text()
        parser.feed(path.read_text(encoding="utf-8"))
        lines = (line.strip() for line in "".join(parser.parts).splitlines())
        pages.append("\n".join(line for line in lines if line))
    return "\n\n".join(pages)


def _needle_lines(seed):
    chance = random.Random(seed)
    syllables = ["ba", "ke", "lo", "mi", "nu", "ra", "so", "ti", "ve", "zu"]
    names = set()
    while len(names) < NEEDLES:
        names.add("".join(chance.choices(syllables, k=3)).capitalize())
    return [f"The code of {name} is {chance.randrange(10_000, 100_000)}." for name in sorted(names)]


def _needles(tokenizer, filler, prompt, scored, seed):
    """Filler with a line after every so many tokens, then lines again in another order."""
    lines = _needle_lines(seed)
    chance = random.Random(seed)
    chance.shuffle(lines)
    asked = chance.sample(lines, len(lines))
    tail = tokenizer("\n".join(["", *asked]))["input_ids"][:scored]
    encoded = [tokenizer("\n" + line + "\n")["input_ids"] for line in lines]
    room = prompt - sum(map(len, encoded))
    if room < len(lines):
        raise ValueError(f"{len(lines)} needles leave no filler in {prompt} tokens")
    ids, begin = [], 0
    for i, line in enumerate(encoded):
        end = room * (i + 1) // len(encoded)
        ids += filler[begin:end] + line
        begin = end
    return ids + tail


def texts(tokenizer, kind, count, prompt, scored):
    """[count][prompt + scored] token ids."""
    book = tokenizer(handbook())["input_ids"]
    found = []
    for i in range(count):
        begin = FIRST[kind] + i * STRIDE
        ids = book[begin : begin + prompt + scored]
        if len(ids) < prompt + scored:
            raise ValueError(f"the handbook has {len(book)} tokens: too few for {kind} {i}")
        if kind == "copy":
            middle = prompt * 2 // 5
            ids = ids[:prompt] + ids[middle : middle + scored]
        elif kind == "needles":
            ids = _needles(tokenizer, ids, prompt, scored, seed=i)
        assert len(ids) == prompt + scored
        found.append(ids)
    return found
