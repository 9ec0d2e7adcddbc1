"""Acting with language models, many conversations at a time.

A lane is one conversation with its own memory (the keys and values of every trunk). The lane loop speaks
to whatever generates through `LaneModel`; `Sampler` is the one that runs here, in this process.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from turnwise.models.lm.encoder_decoder.memory import EncoderDecoderMemory
from turnwise.models.lm.encoder_decoder.trunk import EncoderDecoder
from turnwise.models.lm.lanes.memory import LaneMemory
from turnwise.models.lm.lanes.prepacked import Prepacked, prepacked_for
from turnwise.rollout.engines.decoding import POLICYS_OWN, Decoding, draw
from turnwise.rollout.engines.protocol import Utterance
from turnwise.run.errors import InputError


class Policy(Protocol):
    """Trunks that read, and a map from their features to logits over the vocabulary."""

    @property
    def trunks(self) -> Sequence[nn.Module]:
        """What reads the history, one memory each."""
        ...

    def logits(self, features: Sequence[Tensor]) -> Tensor:
        """[n, D] per trunk -> [n, V]."""
        ...


class Sampler:
    """Decodes in lanes: histories stay in the cache across turns, and a lane never waits for another.

    At each step every speaking lane reads what it has not read, be it a partner's message or the token that
    it said last, and says one token, drawn with a uniform number of the lane's own seed: what it says does
    not depend on its neighbours. `collect` returns once `at_least` lanes have finished, so that partners
    answer several lanes at a time.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        lanes: int,
        context: int,
        stop: int,
        decoding: Decoding = POLICYS_OWN,
        max_new_tokens: int = 64,
        at_least: int | None = None,
        read_stop: bool = False,
    ):
        self.policy, self.decoding, self.stop = policy, decoding, stop
        self.lanes, self.context, self.max_new_tokens = lanes, context, max_new_tokens
        self.at_least = max(1, lanes // 8) if at_least is None else at_least
        self.read_stop = read_stop
        # A critic on the policy's own trunk reads nothing of its own: one memory for each distinct trunk.
        trunks = tuple(policy.trunks)  # asked for once: that of an encoder-decoder is made anew each time
        distinct = list(dict.fromkeys(trunks))
        self.products = prepacked_for(trunks[0])
        self.memories = [memory_of(trunk, lanes, context, self.products) for trunk in distinct]
        self._memory_of = [distinct.index(trunk) for trunk in trunks]
        self.device = next(trunks[0].parameters()).device
        # What each memory's trunk gave for the last id that a lane read: [N, D], from the first reading on.
        self._features: list[Any] = [None] * len(self.memories)
        self.lengths = np.zeros(lanes, np.int64)  # [N], ids that the memory of each lane holds
        # One number for each position that a token may be said at, drawn at the reset: what is said at a
        # position depends on the lane's seed alone, not on when the lane is served or beside whom.
        self.uniforms = np.zeros((lanes, context + 1))
        self._unread: list[list[int]] = [[] for _ in range(lanes)]
        # Whether something was read behind what each lane said last: then another reply begins.
        self._begins = [True] * lanes
        self._said: list[list[int]] = [[] for _ in range(lanes)]
        self._logp: list[list[float]] = [[] for _ in range(lanes)]
        self._waiting: list[int] = []
        self._speaking: list[int] = []

    @property
    def features(self) -> list[Any]:
        """What each trunk of the policy gave for the last id that a lane read: [N, D] each; None before."""
        return [self._features[i] for i in self._memory_of]

    def reset(self, lane: int, seed: int) -> None:
        """Forget the lane and seed its randomness."""
        self.lengths[lane] = 0
        self._unread[lane], self._begins[lane] = [], True
        self._waiting = [x for x in self._waiting if x != lane]
        self._speaking = [x for x in self._speaking if x != lane]
        self.uniforms[lane] = np.random.default_rng(seed).random(self.context + 1)

    def submit(self, lane: int, ids: Sequence[int]) -> None:
        """Queue what the lane reads before it speaks. InputError if that is an opening too long to answer."""
        if not self.lengths[lane] and len(ids) >= self.context:
            raise InputError(
                f"a conversation opens with {len(ids)} tokens, which leaves no room for an answer; expected "
                f"a model whose context is longer than {self.context}"
            )
        self._unread[lane] += [int(i) for i in ids]
        self._begins[lane] |= len(ids) > 0
        self._said[lane], self._logp[lane] = [], []
        self._waiting.append(lane)

    @torch.inference_mode()
    def read(self, lanes: Sequence[int], ids: Sequence[Sequence[int]]) -> None:
        """Let fresh `lanes` (ascending) read without speaking, so that others can be copies of them."""
        self._expect_other_weights()
        for lane, heard in zip(lanes, ids, strict=True):
            self._unread[lane] = [int(i) for i in heard]
        self._read(lanes, speaking=False)

    @torch.inference_mode()
    def collect(self) -> list[Utterance]:
        """Decode until enough lanes have finished."""
        self._expect_other_weights()
        finished: list[Utterance] = []
        full = [x for x in self._waiting if self.lengths[x] + len(self._unread[x]) >= self.context]
        finished += [self._finish(lane, stopped=False, full=True) for lane in full]
        reading = [x for x in self._waiting if x not in full]
        self._speaking, self._waiting = sorted(self._speaking + reading), []
        while self._speaking and len(finished) < self.at_least:
            self._read(self._speaking)
            finished += self._say_one_token()
        return finished

    @torch.inference_mode()
    def copy_lane(self, source: int, lanes: Sequence[int]) -> None:
        """Let `lanes` remember what `source` does (their randomness stays their own)."""
        others = [lane for lane in lanes if lane != source]
        for memory in self.memories:
            memory.copy_lane(source, others, int(self.lengths[source]))
        for features in self._features:
            if features is not None:
                features[others] = features[source].clone()
        self.lengths[others] = self.lengths[source]
        for lane in others:
            self._unread[lane] = list(self._unread[source])
            self._begins[lane] = self._begins[source]

    def _expect_other_weights(self) -> None:
        """Between two calls weights may have changed, of which products keep copies."""
        if self.products is not None:
            self.products.refresh()

    def _say_one_token(self) -> list[Utterance]:
        """Every speaking lane says one token; those that are through are returned."""
        rows = torch.as_tensor(self._speaking, device=self.device)  # [n], lanes that speak
        with self.products or contextlib.nullcontext():
            logits = self.policy.logits([f[rows] for f in self.features if f is not None])  # [n, V]
        drawn = torch.as_tensor(
            self.uniforms[self._speaking, self.lengths[self._speaking]], device=self.device
        )
        # The recorded log-probability is of what was drawn from: after temperature, top-k and top-p.
        tokens, logp = draw(logits, self.decoding, drawn)
        finished, going_on = [], []
        for lane, token, log in zip(self._speaking, tokens.tolist(), logp.tolist(), strict=True):
            self._said[lane].append(token)
            self._logp[lane].append(log)
            self._unread[lane].append(token)  # what a lane says is what it reads next
            full = self.lengths[lane] + 1 >= self.context
            if token == self.stop or full or len(self._said[lane]) >= self.max_new_tokens:
                finished.append(self._finish(lane, stopped=token == self.stop, full=full))
            else:
                going_on.append(lane)
        if self.read_stop:
            self._read([u.lane for u in finished if not u.out_of_context])
        self._speaking = going_on
        return finished

    def _finish(self, lane: int, stopped: bool, full: bool) -> Utterance:
        if not stopped:  # a turn that was cut is read as one that ended, so that the talk can go on
            self._unread[lane].append(self.stop)
            self._begins[lane] = True
        return Utterance(
            lane, tuple(self._said[lane]), tuple(self._logp[lane]), stopped, full and not stopped
        )

    def _read(self, lanes: Sequence[int], speaking: bool = True) -> None:
        """Feed what is unread in `lanes` (ascending); their features become those of the last id."""
        if not lanes:
            return
        ids, rows = [self._unread[lane] for lane in lanes], np.array(lanes)
        begins = [self._begins[lane] for lane in lanes] if speaking else None
        at = torch.as_tensor(rows, device=self.device)
        for i, memory in enumerate(self.memories):
            features = memory.read(ids, rows, self.lengths[rows], begins)
            if self._features[i] is None:
                self._features[i] = features.new_zeros(self.lanes, features.shape[-1])
            self._features[i][at] = features
        self.lengths[rows] += [len(x) for x in ids]
        for lane in lanes:
            self._unread[lane] = []
            self._begins[lane] = not speaking


def memory_of(
    trunk: Any, lanes: int, context: int, products: Prepacked | None = None
) -> LaneMemory | EncoderDecoderMemory:
    """What a trunk of either kind has read in lanes."""
    if isinstance(trunk, EncoderDecoder):
        return EncoderDecoderMemory(trunk, lanes, context)
    return LaneMemory(trunk, lanes, context, products=products)
