"""A POMDP learnt from sequences: the parameters, the belief while acting, and how likely what was seen is.

The model is a controlled hidden Markov model (Rabiner 1989 with actions; Doshi-Velez 2009 learns the same
kind of POMDP). Before step k the episode is in a hidden state s. The agent acts, and the episode

    goes on        with 1 - e(s,a): s' ~ T(.|s,a), then o ~ O(.|a,s'), and R(s,a) of going on is paid
    ends by itself with e(s,a):     o ~ L(.|s,a), the last answer, and R(s,a) of ending is paid

If no episode is longer than `longest` steps, the clock is part of the structure: at the last step what would
have gone on is cut off instead, with a last answer and a reward of its own. No parameter has to learn that.

Rewards are evidence while the model is fitted (`Pay`): each state says how likely it makes a reward. They are
never evidence while acting: `update` does not take them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from turnwise.run.errors import InputError

if TYPE_CHECKING:
    from turnwise.envs.pomdp import POMDP
    from turnwise.exact.learning.sequences import Sequences

ENDED, CUT_OFF = 0, 1
"""how a last answer came: the episode ended by itself, or the clock ended it"""
TABLES = ("start", "firsts", "transitions", "emissions", "ends", "lasts")
GO_ON, END, STOP = 0, 1, 2
"""what a reward is for: a step that goes on, an end by itself, an end by the clock"""


@dataclass(frozen=True)
class Pay:
    """Rewards as evidence and as numbers. Kinds are GO_ON, END and STOP, in this order."""

    edges: np.ndarray
    """[B-1], rising: bin i holds the rewards above edges[i-1], up to edges[i]"""
    bins: np.ndarray
    """[3, A, S, B], P(bin | kind, a, s)"""
    means: np.ndarray
    """[3, A, S], the expected reward, in the units of the problem"""
    late: np.ndarray
    """[longest], what an end at that step pays beside `means` (0 at all steps: the clock does not matter);
    empty without a clock. It is taken off before a reward is put into its bin"""

    def bins_of(self, sequences: Sequences) -> np.ndarray:
        """[M] int32, the bin of each reward."""
        from turnwise.exact.learning.rewards import without_late  # it is built on this file

        return np.searchsorted(self.edges, without_late(sequences, self.late), side="left").astype(np.int32)


@dataclass(frozen=True)
class LearntModel:
    """S hidden states, A actions, O observations, F first observations. All arrays are float64, read-only."""

    start: np.ndarray
    """[S], P(s_0)"""
    firsts: np.ndarray
    """[S, F], P(first observation | s_0)"""
    transitions: np.ndarray
    """[A, S, S], P(s'|s,a) if the episode goes on"""
    emissions: np.ndarray
    """[A, S, O], P(o|a,s') of the state that was reached"""
    ends: np.ndarray
    """[A, S], the end hazard: P(the episode ends by itself | s, a)"""
    lasts: np.ndarray
    """[2, A, S, O], P(last answer | a, s) after an end by itself, and after an end by the clock"""
    longest: int | None = None
    """steps after which every episode has ended; None: there is no such number"""
    pay: Pay | None = None
    """rewards; None if nobody said what anything was worth"""
    tried: np.ndarray | None = None
    """[A], how often each action occurs in the data; None if unknown"""

    def __post_init__(self) -> None:
        for f in TABLES:
            object.__setattr__(self, f, _frozen(getattr(self, f)))
        S, A, O = self.shape
        expected = {
            "firsts": (S, self.firsts.shape[-1]),
            "transitions": (A, S, S),
            "emissions": (A, S, O),
            "ends": (A, S),
            "lasts": (2, A, S, O),
        }
        for f, shape in expected.items():
            if getattr(self, f).shape != shape:
                raise ValueError(f"{f} has shape {getattr(self, f).shape}; expected {shape}")
        for f in ("start", "firsts", "transitions", "emissions", "lasts"):
            rows = getattr(self, f)
            if not (rows >= 0).all() or not np.allclose(rows.sum(-1), 1, rtol=0, atol=1e-9):
                raise ValueError(f"{f} has a row that is no distribution; expected rows that sum to 1")
        if not ((self.ends >= 0) & (self.ends <= 1)).all():
            raise ValueError("ends has a number outside 0 to 1; expected probabilities")
        if self.longest is not None and self.longest < 1:
            raise ValueError(f"longest is {self.longest}; expected at least 1 step, or None")
        if self.pay is not None:
            object.__setattr__(self, "pay", _frozen_pay(self.pay, self.shape, self.longest))
        if self.tried is not None:
            object.__setattr__(self, "tried", _frozen(self.tried))

    @property
    def shape(self) -> tuple[int, int, int]:
        """(S, A, O)"""
        return self.transitions.shape[1], self.transitions.shape[0], self.emissions.shape[2]

    @cached_property
    def stays(self) -> bool:
        """Whether the hidden state is the same for a whole episode, whatever the agent does."""
        return bool((self.transitions == np.eye(self.shape[0])).all())

    @property
    def episodic(self) -> bool:
        """Whether an episode can end."""
        return self.longest is not None or bool((self.ends > 0).any())

    # --- the belief while acting ---

    def first(self, firsts: np.ndarray) -> np.ndarray:
        """[N, S], beliefs after first observations [N]. What no state explains leaves the start as it is."""
        joint = self.start * self.firsts[:, np.asarray(firsts)].T
        return _conditioned(joint, np.broadcast_to(self.start, joint.shape))[0]

    def update(
        self,
        beliefs: np.ndarray,
        actions: np.ndarray,
        observations: np.ndarray,
        times: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Bayes' filter: (beliefs after the step [N, S], P(goes on and shows that | belief, action) [N]).

        `beliefs` [N, S], `actions`, `observations` [N]; `times` [N], steps taken before this one (0 at
        first). A step of probability 0 leaves what was predicted before anything was seen.
        """
        actions = np.asarray(actions)
        going = beliefs * (1 - self.ends[actions])
        predicted = np.einsum("ns,nst->nt", going, self.transitions[actions])
        joint = predicted * self.emissions[actions, :, np.asarray(observations)]
        blind = np.einsum("ns,nst->nt", beliefs, self.transitions[actions])
        after, probability = _conditioned(joint, blind)
        return after, np.where(self._last(times, len(actions)), 0.0, probability)

    def weigh(self, beliefs: np.ndarray, actions: np.ndarray, evidence: np.ndarray) -> np.ndarray:
        """Beliefs [N, S] after steps whose observations are uncertain.

            b'(s') ~ sum over s, o of b(s) (1 - e(s,a)) T(s'|s,a) O(o|a,s') evidence(o)

        `evidence` [N, O] is P(what was seen | o) up to a factor in each row: a virtual observation (Pearl
        1988, section 2.2.2). A one at one observation and zeros elsewhere is `update`. Evidence that no
        state explains leaves what was predicted before anything was seen.
        """
        actions = np.asarray(actions)
        going = beliefs * (1 - self.ends[actions])
        predicted = np.einsum("ns,nst->nt", going, self.transitions[actions])
        joint = predicted * np.einsum("nto,no->nt", self.emissions[actions], evidence)
        return _conditioned(joint, np.einsum("ns,nst->nt", beliefs, self.transitions[actions]))[0]

    def predict(
        self, beliefs: np.ndarray, actions: np.ndarray, times: np.ndarray | None = None
    ) -> np.ndarray:
        """[N, O], P(o | belief, action): the next answer, whether the episode goes on with it or ends."""
        on, over = self.outcomes(beliefs, actions, times)
        return on + over

    def outcomes(
        self, beliefs: np.ndarray, actions: np.ndarray, times: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """(P(o and it goes on) [N, O], P(o and it ends) [N, O]); together they sum to 1."""
        actions = np.asarray(actions)
        going = beliefs * (1 - self.ends[actions])
        ending = beliefs * self.ends[actions]
        predicted = np.einsum("ns,nst->nt", going, self.transitions[actions])
        on = np.einsum("nt,nto->no", predicted, self.emissions[actions])
        over = np.einsum("ns,nso->no", ending, self.lasts[ENDED, actions])
        cut = np.einsum("ns,nso->no", going, self.lasts[CUT_OFF, actions])
        last = self._last(times, len(actions))[:, None]
        return np.where(last, 0.0, on), np.where(last, over + cut, over)

    def expected_rewards(
        self, beliefs: np.ndarray, actions: np.ndarray, times: np.ndarray | None = None
    ) -> np.ndarray:
        """[N], of the next step; ValueError if the model has no rewards."""
        if self.pay is None:
            raise ValueError("the model has no rewards")
        actions = np.asarray(actions)
        n, e, m = len(actions), self.ends[actions], self.pay.means[:, actions]
        last = self._last(times, n)[:, None]
        late = np.zeros((n, 1))
        if times is not None and len(self.pay.late):
            late = self.pay.late[np.minimum(times, len(self.pay.late) - 1)][:, None]
        on = np.where(last, m[STOP] + late, m[GO_ON])
        return (beliefs * (e * (m[END] + late) + (1 - e) * on)).sum(1)

    def _last(self, times: np.ndarray | None, n: int) -> np.ndarray:
        """[N] bool, whether the clock ends the episode with this step."""
        if self.longest is None or times is None:
            return np.zeros(n, bool)
        return np.asarray(times) >= self.longest - 1

    # --- how well it explains what was seen ---

    def log_likelihoods(self, sequences: Sequences, *, rewards: bool = False) -> np.ndarray:
        """[N], ln P(first observation, observations, ends | actions) of each episode, in nats.

        With `rewards`, of the rewards' bins too. -inf for what the model holds impossible.
        """
        from turnwise.exact.learning.expectation import log_likelihoods  # it is built on this file

        return log_likelihoods(self, sequences, rewards=rewards)

    def log_likelihood(self, sequences: Sequences, *, rewards: bool = False) -> float:
        """The sum of `log_likelihoods`, in nats."""
        return float(self.log_likelihoods(sequences, rewards=rewards).sum())

    # --- as a problem to plan in ---

    def pomdp(
        self,
        discount: float,
        *,
        actions: Sequence[str] | None = None,
        observations: Sequence[str] | None = None,
        firsts: Sequence[str] | None = None,
        name: str = "",
    ) -> POMDP:
        """The problem that the model describes; see `exact.learning.problem.pomdp_of`."""
        from turnwise.exact.learning.problem import pomdp_of  # it is built on this file

        return pomdp_of(self, discount, actions=actions, observations=observations, firsts=firsts, name=name)

    def plan_beliefs(self, beliefs: np.ndarray, times: np.ndarray) -> np.ndarray:
        """[N, S of `pomdp`], beliefs [N, S] after `times` [N] steps, over the states of `pomdp(...)`."""
        from turnwise.exact.learning.problem import plan_beliefs  # it is built on this file

        return plan_beliefs(self, beliefs, times)

    # --- kept ---

    def arrays(self) -> dict[str, np.ndarray]:
        """All numbers by name; `from_arrays` makes the model of them again."""
        found = {
            f: getattr(self, f) for f in ("start", "firsts", "transitions", "emissions", "ends", "lasts")
        }
        found["longest"] = np.array(-1 if self.longest is None else self.longest)
        if self.pay is not None:
            found |= {f"pay_{f.name}": getattr(self.pay, f.name) for f in fields(self.pay)}
        if self.tried is not None:
            found["tried"] = self.tried
        return found

    @staticmethod
    def from_arrays(arrays: dict[str, np.ndarray]) -> LearntModel:
        """Of what `arrays` gave. KeyError or ValueError for anything else."""
        longest = int(arrays["longest"])
        pay = None
        if "pay_edges" in arrays:
            pay = Pay(**{f.name: arrays[f"pay_{f.name}"] for f in fields(Pay)})
        return LearntModel(
            **{f: arrays[f] for f in TABLES},
            longest=None if longest < 0 else longest,
            pay=pay,
            tried=arrays.get("tried"),
        )

    def save(self, path: Path) -> None:
        """Write a .npz of NumPy with `arrays()`, whole or not at all."""
        from turnwise.run.files.whole import whole_file

        with whole_file(path) as part, part.open("wb") as file:
            arrays: Any = self.arrays()
            np.savez_compressed(file, **arrays)

    @staticmethod
    def load(path: Path) -> LearntModel:
        """Read what `save` wrote. Anything else is an InputError."""
        try:
            with np.load(path, allow_pickle=False) as found:
                return LearntModel.from_arrays({k: found[k] for k in found.files})
        except (OSError, ValueError, KeyError, EOFError) as e:
            raise InputError(f"{path}: expected a learnt model (.npz): {e}") from e


def _frozen(array: np.ndarray) -> np.ndarray:
    array = np.array(array, np.float64, order="C")
    array.setflags(write=False)
    return array


def _frozen_pay(pay: Pay, shape: tuple[int, int, int], longest: int | None) -> Pay:
    S, A, _ = shape
    pay = replace(pay, **{f.name: _frozen(getattr(pay, f.name)) for f in fields(pay)})
    expected = {"bins": (3, A, S, len(pay.edges) + 1), "means": (3, A, S), "late": (longest or 0,)}
    for f, size in expected.items():
        if getattr(pay, f).shape != size:
            raise ValueError(f"pay.{f} has shape {getattr(pay, f).shape}; expected {size}")
    if not np.allclose(pay.bins.sum(-1), 1, rtol=0, atol=1e-9):
        raise ValueError("pay.bins has a row that is no distribution; expected rows that sum to 1")
    return pay


def _conditioned(joint: np.ndarray, otherwise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(rows of `joint` [N, S] divided by their sums, or `otherwise` where that is 0; the sums [N])."""
    mass = joint.sum(1)
    known = (mass > 0)[:, None]
    rows = np.where(known, joint / np.where(mass > 0, mass, 1.0)[:, None], otherwise)
    return rows, mass
