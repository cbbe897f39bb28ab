"""One row of a batch: a sequence in the daemon and what the worker knows about it."""

import array

from kvtier.v1 import worker_pb2


class Row:
    def __init__(self, sequence, pads, prompt_ids):
        self.sequence = sequence
        self.pads = pads
        # Tokens that the daemon has at all layers: full chunks.
        self.sent = sequence.cached_tokens
        # Of those, how many are the cached beginning of a prompt.
        self.reused = 0
        # Given when the sequence was opened; the daemon knows them.
        self.prompt_ids = prompt_ids
        # Of all tokens that were processed or reused.
        self.ids = array.array("I", prompt_ids[: self.sent])
        # First token whose rows come from attention that did not read everything.
        exact = sequence.exact_tokens
        self.approximate_from = exact if exact < self.sent else None

    def length(self, columns) -> int:
        """Tokens among the first `columns` columns."""
        return max(0, columns - self.pads)

    def matches_prompt(self, ids) -> bool:
        """Whether `ids` continue self.ids as the daemon was told."""
        begin = len(self.ids)
        known = self.prompt_ids[begin : begin + len(ids)]
        return known == ids[: len(known)]

    def extend(self, ids, approximate):
        if not self.matches_prompt(ids):
            # The daemon forgets ids beyond a truncation.
            self.sequence.truncate(self.sent)
            self.prompt_ids = []
        if approximate and self.approximate_from is None:
            self.approximate_from = len(self.ids)
        self.ids.extend(ids)

    def cut(self, sent, length):
        if sent < self.sent:
            self.prompt_ids = []
        self.sent = sent
        del self.ids[length:]
        if self.approximate_from is not None and self.approximate_from >= length:
            self.approximate_from = None

    def is_approximate(self, end) -> bool:
        return self.approximate_from is not None and self.approximate_from < end

    def token_run(self, begin, end):
        ids = self.ids[begin:end]
        return worker_pb2.TokenRun(
            sequence_id=self.sequence.id, start_token=begin, token_ids=ids
        )

    def fork(self) -> "Row":
        twin = Row(self.sequence.fork(), self.pads, self.prompt_ids)
        twin.sent = self.sent
        twin.reused = self.reused
        twin.ids = self.ids[:]
        twin.approximate_from = self.approximate_from
        return twin
