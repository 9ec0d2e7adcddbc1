"""Lanes whose speaker is a server: all that was heard and said is sent, the next turn comes back."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np

from turnwise.rollout.engines.decoding import Decoding
from turnwise.rollout.engines.protocol import Span, Utterance
from turnwise.rollout.engines.servers.contract import Answer, Ask
from turnwise.rollout.engines.servers.pool import Box, Pool
from turnwise.run.errors import InputError


class EngineLanes:
    """A `LaneModel` of one version of a policy's weights, spoken by the servers of a pool.

    It cuts and ends as `Sampler` does. The seed of an utterance is made of the lane's and of the place where
    it begins: what is said does not depend on the other lanes, nor on how many servers there are.
    """

    def __init__(
        self,
        pool: Pool,
        version: str,
        *,
        vocabulary: int,
        context: int,
        stop: int,
        decoding: Decoding,
        max_new_tokens: int,
        at_least: int,
    ):
        self.pool, self.version, self.vocabulary = pool, version, vocabulary
        self.context, self.stop, self.decoding = context, stop, decoding
        self.max_new_tokens, self.at_least = max_new_tokens, at_least
        self._ids: dict[int, list[int]] = {}
        self._seeds: dict[int, int] = {}
        self._asked: dict[int, tuple[int, int]] = {}  # the key under which a lane's answer will come
        self._full: deque[int] = deque()
        self._box = Box()
        self._tickets = 0

    def reset(self, lane: int, seed: int) -> None:
        """Forget the lane and seed its randomness."""
        if (key := self._asked.pop(lane, None)) is not None:
            self.pool.drop(self._box, key)
        self._ids[lane], self._seeds[lane] = [], seed

    def submit(self, lane: int, ids: Sequence[int]) -> None:
        """Let the lane hear `ids` and ask for its answer. InputError if they leave no room for any."""
        heard = self._ids[lane]
        if not heard and len(ids) >= self.context:
            raise InputError(
                f"a conversation opens with {len(ids)} tokens, which leaves no room for an answer; expected "
                f"a model whose context is longer than {self.context}"
            )
        heard += [int(i) for i in ids]
        if len(heard) >= self.context:
            self._full.append(lane)
            return
        self._tickets += 1
        key = self._asked[lane] = (lane, self._tickets)
        most = min(self.max_new_tokens, self.context - len(heard))
        ask = Ask(tuple(heard), most, _seed(self._seeds[lane], len(heard)), self.stop, self.decoding)
        self.pool.put(self._box, key, ask)

    def collect(self) -> list[Utterance]:
        """Wait until enough lanes have answers. InputError if servers cannot give them."""
        finished = [Utterance(lane, (), (), False, True) for lane in self._full]
        self._full.clear()
        needed = max(0, self.at_least - len(finished)) if self._asked else 0
        for (lane, _), answer in sorted(self.pool.take(self._box, needed)) if needed else ():
            del self._asked[lane]
            finished.append(self._said(lane, answer))
        return finished

    def _said(self, lane: int, answer: Answer) -> Utterance:
        if max(answer.ids) >= self.vocabulary or min(answer.ids) < 0:
            raise InputError(
                f"a server said token {max(answer.ids)}; the policy's vocabulary has {self.vocabulary:,}: "
                "expected a server of the same model"
            )
        heard = self._ids[lane]
        heard += answer.ids
        stopped = answer.ids[-1] == self.stop
        full = len(heard) >= self.context
        if not stopped:  # a turn that was cut is read as one that ended, so that the talk can go on
            heard.append(self.stop)
        spans = (Span(self.version, 0, len(answer.ids)),)
        return Utterance(lane, answer.ids, answer.logp, stopped, full and not stopped, spans)


def _seed(lane: int, place: int) -> int:
    """The seed of what a lane says from `place` on, below 2^63."""
    return int(np.random.SeedSequence((lane, place)).generate_state(1, np.uint64)[0] >> np.uint64(1))
