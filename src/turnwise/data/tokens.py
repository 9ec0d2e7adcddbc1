"""Conversations as token ids: which tokens are the agent's actions, where turns end, what they earned.

Ids are the record and text is a view of them: what a policy sampled is stored as sampled and never
encoded again. The stop token that ends an agent's message is an action like any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from turnwise.run.errors import InputError


@dataclass(frozen=True)
class Tokens:
    """One conversation, or a segment of one, as a model reads it; all arrays have length T.

    Two log-probabilities of the policy that acted are kept apart: logs carry one for a whole message, replies
    sampled here one for each token.
    """

    ids: np.ndarray
    """Token ids, int64."""
    action: np.ndarray
    """Whether the agent chose this token."""
    turn_end: np.ndarray
    """Whether this is the last token of a turn of the agent."""
    rewards: np.ndarray
    """What followed the token, in the units of the task; 0 except at turn ends."""
    message_logp: np.ndarray
    """Log-probability of the message that ends here under the logged behaviour, in nats; NaN if unknown."""
    token_logp: np.ndarray
    """Log-probability of the token under the distribution it was sampled from, in nats; NaN if unknown."""
    terminated: bool
    """Whether the conversation truly ended after the last action."""
    learn_from: int = 0
    """First position whose decision is learnt from; what is before it is burn-in."""
    next_known: bool = True
    """Whether the state after the last action is in `ids`. It is not if a log was cut right after the agent's
    own words: that action has no state to bootstrap from, so it is read but not learnt from."""
    continues: bool = False
    """Whether this is a part of a longer conversation that goes on in the next row."""
    id: str = ""
    """Id of the conversation."""
    features: np.ndarray | None = None
    """What a frozen trunk made of each position, [T, D]: a critic's heads read it in place of the ids."""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def decisions(self) -> np.ndarray:
        """Positions from which an action is taken: the ones before the action tokens. Shape [A]."""
        return np.flatnonzero(self.action[1:])

    def window(self, start: int, stop: int) -> Tokens:
        """Positions start..stop-1 as a row of its own, cut (not ended) unless it reaches the last one.

        A window that does not reach it does not claim to go on in the next row: the caller knows that.
        """
        arrays = ("ids", "action", "turn_end", "rewards", "message_logp", "token_logp")
        last = stop == len(self)
        return replace(
            self,
            **{name: getattr(self, name)[start:stop] for name in arrays},
            terminated=self.terminated and last,
            next_known=self.next_known or not last,
            learn_from=max(0, self.learn_from - start),
            continues=self.continues and last,
        )

    def of_decisions(self, features: np.ndarray) -> Tokens:
        """The row at the positions that a value is read at, with `features` [T', D] of these.

        What the others said is in the features already. Decisions, actions and the final state stay, in their
        order, so that packers make of it what they make of the whole row.
        """
        kept = self.read_at
        arrays = ("ids", "action", "turn_end", "rewards", "message_logp", "token_logp")
        return replace(
            self,
            **{name: getattr(self, name)[kept] for name in arrays},
            learn_from=int(np.searchsorted(kept, self.learn_from)),
            features=features,
        )

    @property
    def read_at(self) -> np.ndarray:
        """Positions that a value is read at, [T']: where a token is chosen from, the token, the end."""
        kept = self.action.copy()
        kept[:-1] |= self.action[1:]
        kept[-1] = True
        return np.flatnonzero(kept)

    def idle(self) -> Tokens:
        """Two positions of the row, where an action of the agent begins, read and not learnt from."""
        begins = [int(d) for d in self.decisions if not self.action[d]] or [int(self.decisions[0])]
        return replace(self.window(begins[0], begins[0] + 2), learn_from=2)

    def behind(self, ids: np.ndarray) -> Tokens:
        """The row behind other ids, which are read and not learnt from."""
        n = len(ids)
        fills = {
            "action": False,
            "turn_end": False,
            "rewards": 0.0,
            "message_logp": np.nan,
            "token_logp": np.nan,
        }
        arrays = {name: np.concatenate([np.full(n, x), getattr(self, name)]) for name, x in fills.items()}
        whole = np.concatenate([ids, self.ids])
        return replace(self, ids=whole, learn_from=self.learn_from + n, **arrays)


def segments(tokens: Tokens, context: int, opening: int = 0) -> list[Tokens]:
    """Chain a conversation that is longer than `context` tokens into rows that fit.

        rrrraaarrraaaarrrraar      a conversation of 21 tokens: a is an action, r is read
        rrrraaarrr                 its rows if the context is 12
               ~~raaaarrrr         ~ is burn-in, read once more and not learnt from
                       ~~raar

    Each action is learnt from in exactly one row. A row ends at the state from which the next row's first
    decision is taken: its last value bootstraps from there, so the cut loses no reward. A row begins up to a
    quarter of the context before that state, because a decision without what was just said would be a guess;
    the first row begins at the beginning if its first turn fits then. A turn is cut only if it is longer than
    a row. InputError if two decisions lie further apart than a row is long.

    The first `opening` tokens (the system message, say) are read once more at the beginning of each later
    row, up to a quarter of the context.
    """
    if len(tokens) <= context:
        return [tokens]
    states = np.append(tokens.decisions, len(tokens) - 1)  # [A+1], positions; the last one is the final state
    # [A+1]: the decision at this state opens a turn, so that a cut here tears none apart.
    opens_turn = np.append((~tokens.action | tokens.turn_end)[states[:-1]], True)
    first_turn_ends = int(states[1 + int(opens_turn[1:].argmax())])
    rows, first = [], 0  # first: the decision that the next row learns from first
    while first < len(states) - 1:
        start = max(0, int(states[first]) + 1 - context // 4)
        if not rows and first_turn_ends < context:
            start = 0
        # At least one decision and the state after it must fit, if need be at the cost of the burn-in.
        start = max(start, int(states[first + 1]) + 1 - context)
        again = min(opening, context // 4, start)  # tokens of the opening that stand before the window
        start = max(start, int(states[first + 1]) + 1 - (context - again))
        if start > states[first]:
            raise InputError(
                f"conversation {tokens.id!r}: {int(states[first + 1] - states[first])} tokens lie between "
                f"two decisions, more than the context of {context} can hold; expected a larger context"
            )
        fits = int(np.searchsorted(states, start + context - again, side="left")) - 1  # the last state inside
        between_turns = [k for k in range(first + 1, fits + 1) if opens_turn[k]]
        cut = between_turns[-1] if between_turns else fits
        row = tokens.window(start, int(states[cut]) + 1)
        row = replace(row, learn_from=int(states[first]) - start, continues=cut < len(states) - 1)
        rows.append(row.behind(tokens.ids[:again]) if again else row)
        first = cut
    return rows


class Turn(NamedTuple):
    """Positions start..stop-1 that the agent chose, and what is known of them."""

    start: int
    stop: int
    complete: bool
    reward: float
    message_logp: float
    token_logp: np.ndarray | float


@dataclass(frozen=True)
class Written:
    """A conversation as it was written, before it is made into arrays."""

    ids: list[int]
    turns: list[Turn]
    terminated: bool
    next_known: bool
    id: str
    unread: int = 0
    """Tokens that were said and left out, because more was said than fits."""
    shortened: int = 0
    """Messages that they were left out of."""
    opening: int = 0
    """How many of the first ids are the opening system messages; 0 for conversations that fit in any case."""
    first_wait: int = 0
    """Tokens before the agent's first turn, those left out included."""

    def tokens(self) -> Tokens:
        """The arrays."""
        T = len(self.ids)
        action, turn_end = np.zeros(T, bool), np.zeros(T, bool)
        rewards, message_logp, token_logp = np.zeros(T), np.full(T, np.nan), np.full(T, np.nan)
        for turn in self.turns:
            last = turn.stop - 1
            action[turn.start : turn.stop] = True
            token_logp[turn.start : turn.stop] = turn.token_logp
            # A turn that was cut has no end, but what it earned and its log-probability stand there too.
            turn_end[last], rewards[last], message_logp[last] = turn.complete, turn.reward, turn.message_logp
        return Tokens(
            ids=np.array(self.ids, np.int64),
            action=action,
            turn_end=turn_end,
            rewards=rewards,
            message_logp=message_logp,
            token_logp=token_logp,
            terminated=self.terminated,
            next_known=self.next_known,
            id=self.id,
        )


class TokenWriter:
    """Builds the arrays of a `Tokens`, message by message."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self._turns: list[Turn] = []
        self._unread = self._shortened = 0
        self._waits = list[int]()
        self.opening = 0

    def read(self, ids: Sequence[int]) -> None:
        """Tokens that the agent did not choose."""
        self.ids += ids

    def act(
        self,
        ids: Sequence[int],
        reward: float,
        message_logp: float | None,
        token_logp: Sequence[float] | None = None,
        complete: bool = True,
    ) -> None:
        """Tokens that the agent chose; unless `complete`, the turn was cut before its end.

        ValueError if nothing was read before: an action is chosen from the position before it.
        """
        if not self.ids or not len(ids):
            raise ValueError(f"{len(ids)} actions after {len(self.ids)} tokens; expected at least 1 after 1")
        start = len(self.ids)
        self.ids += ids
        self._turns.append(
            Turn(
                start,
                len(self.ids),
                complete,
                reward,
                np.nan if message_logp is None else message_logp,
                np.nan if token_logp is None else np.array(token_logp, np.float64),
            )
        )

    def waited(self, tokens: int) -> None:
        """What is read before a turn has so many tokens, those that will be left out included."""
        self._waits.append(tokens)

    def leave_out(self, tokens: int, messages: int) -> None:
        """Tokens that were said and are not read, and how many messages lost them."""
        self._unread += tokens
        self._shortened += messages

    def written(self, *, terminated: bool, next_known: bool, id: str) -> Written:
        """The conversation as written so far."""
        first = self._waits[0] if self._waits else 0
        known = (self._unread, self._shortened, self.opening, first)
        return Written(self.ids, self._turns, terminated, next_known, id, *known)

    def tokens(self, *, terminated: bool, next_known: bool, id: str) -> Tokens:
        """The same as arrays."""
        return self.written(terminated=terminated, next_known=next_known, id=id).tokens()
