"""A plan in a learnt model, and how it acts: one step of look-ahead over the values of the plan.

    Q(b,a,t) = R(b,a,t) + g sum_o P(o, goes on | b,a) V(b_ao, t+1),    V(b,t) = max_i alpha_i^t . b

The alpha vectors are those of SARSOP in the model's problem. With a clock its states are pairs of a hidden
state and a time, and each vector is cut into one for each time. Each is the value of a plan that can be
followed, so one step of look-ahead is worth at least as much *in the model*, also at beliefs that the search
has never met. What it is worth in the world is another question: errors of thin rows that a planner takes for
luck. Other models, fitted to resampled data, ask it (`simulated_returns`), and a plan in their mixture knows
that it does not know.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from turnwise.exact.alpha_policy import AlphaPolicy
from turnwise.exact.learning.model import END, GO_ON, STOP, LearntModel
from turnwise.run.errors import InputError

CHUNK = 20_000_000
"""numbers that a look-ahead holds at a time"""
TAIL = 1e-4
"""An episode is cut where a reward is discounted to this share of itself."""
MOST_STEPS = 1000
"""steps after which an episode is cut that neither the clock nor the model ends"""


@dataclass(frozen=True)
class Planner:
    """Chooses actions at beliefs of `model`.

    `allowed` are the actions that it may take. `alphas` has an array [n, S] for each time of the clock, or
    one for all times if the model has none: values of plans that begin then.
    """

    model: LearntModel
    allowed: np.ndarray
    alphas: tuple[np.ndarray, ...]
    discount: float

    @classmethod
    def of(cls, model: LearntModel, allowed: np.ndarray, policy: AlphaPolicy, discount: float) -> Planner:
        """From vectors over the states of `allowed_only(model, allowed).pomdp(discount)`."""
        S, H = model.shape[0], model.longest or 1
        # Behind the last time no value is needed, since every episode is over.
        cut = tuple(_best_only(policy.alphas[:, t * S : (t + 1) * S]) for t in range(H))
        return cls(model, np.asarray(allowed, np.int64), cut, discount)

    def values(self, beliefs: np.ndarray, times: np.ndarray) -> np.ndarray:
        """[N], what the plans are worth at beliefs [N, S] after `times` [N] steps."""
        found = np.zeros(len(beliefs))
        for t in np.unique(self._times(times)):
            here = self._times(times) == t
            found[here] = (beliefs[here] @ self.alphas[t].T).max(1)
        return found

    def q(self, beliefs: np.ndarray, times: np.ndarray) -> np.ndarray:
        """[N, A], Q of every action; -inf for those that are not allowed."""
        times = self._times(times)
        found = np.full((len(beliefs), self.model.shape[1]), -np.inf)
        for t in np.unique(times):
            here = np.flatnonzero(times == t)
            # Episodes that have seen the same so far are many where few things can be answered.
            different, which = np.unique(beliefs[here], axis=0, return_inverse=True)
            size = max(1, CHUNK // (self.model.shape[2] * max(self.model.shape[0], len(self._ahead(int(t))))))
            for a in self.allowed.tolist():
                parts = [self._q(different[k : k + size], a, int(t)) for k in range(0, len(different), size)]
                found[here, a] = np.concatenate(parts)[which.ravel()]
        return found

    def _q(self, beliefs: np.ndarray, a: int, t: int) -> np.ndarray:
        """[n], Q of one action at one time."""
        m = self.model
        now = beliefs @ self._rewards[t][a]
        if m.longest is not None and t == len(self.alphas) - 1:
            return now
        ahead = beliefs * (1 - m.ends[a])
        if not m.stays:
            ahead = ahead @ m.transitions[a]
        joint = ahead[:, None] * m.emissions[a].T  # [n, O, S], P(o, s', goes on | b, a)
        return now + self.discount * (joint @ self._ahead(t).T).max(2).sum(1)

    def _ahead(self, t: int) -> np.ndarray:
        """[n, S], the vectors of the time after `t`."""
        return self.alphas[min(t + 1, len(self.alphas) - 1)]

    def _times(self, times: np.ndarray) -> np.ndarray:
        # A talk that goes on behind the longest one of the model is at its last step, again and again.
        return np.minimum(np.asarray(times), len(self.alphas) - 1)

    @cached_property
    def _rewards(self) -> list[np.ndarray]:
        """[A, S] at each time."""
        return [rewards_at(self.model, t) for t in range(len(self.alphas))]

    def best(self, beliefs: np.ndarray, times: np.ndarray) -> np.ndarray:
        """[N], the best allowed action at each belief; of equals the first."""
        return self.q(beliefs, times).argmax(1)

    def save(self, path: Path) -> None:
        """Write a .npz of NumPy, whole or not at all; the model is saved elsewhere."""
        from turnwise.run.files.whole import whole_file

        arrays = {f"alphas_{t}": vectors for t, vectors in enumerate(self.alphas)}
        with whole_file(path) as part, part.open("wb") as file:
            np.savez_compressed(file, allowed=self.allowed, discount=np.array(self.discount), **arrays)  # pyright: ignore[reportArgumentType]

    @classmethod
    def load(cls, path: Path, model: LearntModel) -> Planner:
        """Read what `save` wrote. Anything else is an InputError."""
        try:
            with np.load(path, allow_pickle=False) as found:
                alphas = tuple(found[f"alphas_{t}"] for t in range(model.longest or 1))
                return cls(model, found["allowed"], alphas, float(found["discount"]))
        except (OSError, ValueError, KeyError, EOFError) as e:
            raise InputError(f"{path}: expected a plan (.npz): {e}") from e


def rewards_at(model: LearntModel, t: int) -> np.ndarray:
    """[A, S], the expected reward of each action in each state as step `t` (from 0)."""
    if model.pay is None:
        raise ValueError("the model has no rewards")
    m, e = model.pay.means, model.ends
    late = model.pay.late[t] if len(model.pay.late) else 0.0
    last = model.longest is not None and t >= model.longest - 1
    return e * (m[END] + late) + (1 - e) * (m[STOP] + late if last else m[GO_ON])


def allowed_only(model: LearntModel, allowed: Sequence[int] | np.ndarray) -> LearntModel:
    """The model of an agent that has some of the actions only."""
    a = np.asarray(allowed, np.int64)
    pay = model.pay and replace(model.pay, bins=model.pay.bins[:, a], means=model.pay.means[:, a])
    return replace(
        model,
        transitions=model.transitions[a],
        emissions=model.emissions[a],
        ends=model.ends[a],
        lasts=model.lasts[:, a],
        pay=pay,
        tried=None if model.tried is None else model.tried[a],
    )


def _best_only(vectors: np.ndarray) -> np.ndarray:
    """The different vectors [n, S], without those that another one exceeds in every state."""
    different = np.unique(vectors, axis=0)
    kept: list[np.ndarray] = []
    for v in different[np.argsort(-different.sum(1), kind="stable")]:
        if not kept or not (np.stack(kept) >= v).all(1).any():
            kept.append(v)
    return np.stack(kept)


def simulated_returns(
    planner: Planner, world: LearntModel, episodes: int, rng: np.random.Generator
) -> np.ndarray:
    """[episodes], returns of the planner in another model, which it believes to be its own, at its discount.

    What it is shown that its own model holds impossible leaves its belief as it predicted it.
    """
    assert world.pay is not None
    states = draws(np.tile(world.start, (episodes, 1)), rng)
    beliefs = planner.model.first(draws(world.firsts[states], rng))
    lanes, returns, t = np.arange(episodes), np.zeros(episodes), 0
    means, late = world.pay.means, world.pay.late
    while len(lanes):
        times = np.full(len(lanes), t)
        actions = planner.best(beliefs, times)
        last = world.longest is not None and t >= world.longest - 1
        over = rng.random(len(lanes)) < world.ends[actions, states]
        kind = np.where(over, END, STOP if last else GO_ON)
        paid = means[kind, actions, states]
        if len(late):
            paid = paid + np.where(kind == GO_ON, 0.0, late[min(t, len(late) - 1)])
        returns[lanes] += planner.discount**t * paid
        going = np.flatnonzero(kind == GO_ON)
        if t + 1 >= MOST_STEPS or planner.discount**t < TAIL:
            break
        lanes, states, beliefs, actions = lanes[going], states[going], beliefs[going], actions[going]
        states = draws(world.transitions[actions, states], rng)
        seen = draws(world.emissions[actions, states], rng)
        beliefs = planner.model.update(beliefs, actions, seen, times[going])[0]
        t += 1
    return returns


def draws(p: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """[N], an index drawn from each row of probabilities [N, K]."""
    c = np.cumsum(p, 1)
    return np.minimum((c < rng.random(len(c))[:, None] * c[:, -1:]).sum(1), p.shape[1] - 1)


def mixture(models: Sequence[LearntModel], weights: Sequence[float] | None = None) -> LearntModel:
    """One model whose hidden state is a pair: which of the models holds, and the state in it.

    The agent that plans in it does not know which model is the true one, and learns of it as it talks
    (Duff 2002: Bayes-adaptive; here over finitely many models). Exact where none of the models depends on
    how late it is (`Pay.late` is averaged).
    """
    first = models[0]
    n, (_, A, _) = len(models), first.shape
    w = np.full(n, 1 / n) if weights is None else np.asarray(weights, np.float64) / np.sum(weights)
    sizes = [m.shape[0] for m in models]
    S, places = sum(sizes), np.cumsum([0, *sizes])
    transitions = np.zeros((A, S, S))
    for m, lo, hi in zip(models, places, places[1:], strict=False):
        transitions[:, lo:hi, lo:hi] = m.transitions
    pay = None
    if all(m.pay is not None for m in models):
        pays = [m.pay for m in models if m.pay is not None]
        late = np.average([p.late for p in pays], axis=0, weights=w)
        bins = np.concatenate([p.bins for p in pays], 2)
        pay = replace(pays[0], bins=bins, means=np.concatenate([p.means for p in pays], 2), late=late)
    return LearntModel(
        start=np.concatenate([x * m.start for x, m in zip(w, models, strict=True)]),
        firsts=np.concatenate([m.firsts for m in models]),
        transitions=transitions,
        emissions=np.concatenate([m.emissions for m in models], 1),
        ends=np.concatenate([m.ends for m in models], 1),
        lasts=np.concatenate([m.lasts for m in models], 2),
        longest=first.longest,
        pay=pay,
        tried=first.tried,
    )
