"""What an agent's memory knows of the hidden state, beside what could be known.

The agent plays; its features h_t (what its head reads), the hidden states s_t and the exact beliefs b_t are
kept. A linear read-out P(s|h) = softmax(W h + c) is fitted by maximum likelihood on half of the episodes, and
measured on the other half, step by step:

    memory        the read-out of the agent's own features
    untrained     the same memory with fresh weights, reading the same histories
    observation   the read-out of the last observation alone
    belief        argmax_s b_t(s): nothing that was done and seen tells more (rewards aside)

Accuracy is the share of right guesses, cross-entropy -mean log P(s_t), nats. Where rewards tell nothing more,
both are taken in expectation over s_t ~ b_t, which is exact and less noisy: a guess s counts b_t(s), and no
reader can be above the belief but by chance in the read-out's fit. Linear probes: Alain & Bengio
2016, arXiv:1610.01644. Probes of beliefs in recurrent agents: Lambrechts, Bolland & Ernst 2022, "Recurrent
networks, hidden states and beliefs in partially observable environments".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor
from torch.nn import functional as F

from turnwise.data.episode import Episode
from turnwise.data.steps import pack_steps
from turnwise.envs.pomdp import POMDP
from turnwise.exact.beliefs import BeliefFilter
from turnwise.models.memory.remembering import Memory

STEPS = 40
"""of each episode that are probed"""
MOST_STATES = 400
FEW = 20
"""a step at which fewer episodes of the second half still run is left out"""
ROWS = 10_000
"""steps that a read-out is fitted to"""
WORK = 3e7
"""rows * features * states, where that is less"""
PENALTY = 1e-5
"""of the squared weights of the read-out, per row"""


def beliefs_along(
    problem: POMDP, episodes: Sequence[Episode], steps: int
) -> Iterator[tuple[np.ndarray, Any]]:
    """For each step t below `steps`: which episodes run [n], and their exact beliefs before action t [n, S].

    Beliefs are of actions and observations; rewards are not read.
    """
    bayes = BeliefFilter(problem)
    lengths = np.array([len(e) for e in episodes])
    running = np.arange(len(episodes))
    beliefs = bayes.first(np.array([e.observations[0] for e in episodes]))
    for t in range(min(steps, int(lengths.max()))):
        yield running, beliefs
        on = lengths[running] > t + 1
        running = running[on]
        if not len(running):
            return
        actions = np.array([episodes[i].actions[t] for i in running])
        seen = np.array([episodes[i].observations[t + 1] for i in running])
        beliefs = bayes.update(beliefs[np.flatnonzero(on)], actions, seen)


@dataclass(frozen=True)
class Steps:
    """Steps of many episodes, M in all."""

    episode: np.ndarray
    """[M]"""
    time: np.ndarray
    """[M], step within the episode, from 0"""
    state: np.ndarray
    """[M], hidden"""
    observation: np.ndarray
    """[M], the last one"""
    beliefs: Any
    """sparse [M, S], exact"""


def steps_of(problem: POMDP, episodes: Sequence[Episode], steps: int = STEPS) -> Steps:
    """The first `steps` steps of each episode, by time and then by episode."""
    columns: list[tuple[np.ndarray, ...]] = []
    rows: list[Any] = []
    for t, (running, beliefs) in enumerate(beliefs_along(problem, episodes, steps)):
        states = np.array([_states(episodes[i])[t] for i in running])
        seen = np.array([episodes[i].observations[t] for i in running])
        columns.append((running, np.full(len(running), t), states, seen))
        rows.append(beliefs)
    joined: Any = sparse.vstack(rows)
    episode, time, state, seen = (np.concatenate(c) for c in zip(*columns, strict=True))
    return Steps(episode, time, state, seen, joined.tocsr())


def _states(episode: Episode) -> np.ndarray:
    if episode.states is None:
        raise ValueError("a probe needs hidden states, and the environment does not tell them")
    return episode.states


def features_of(memory: Memory, episodes: Sequence[Episode], steps: Steps) -> Tensor:
    """[M, D] float64, what the memory gives at those steps."""
    dtype = next(memory.parameters(), torch.zeros(())).dtype
    found = []
    with torch.inference_mode():
        for at in range(0, len(episodes), 100):
            inputs = pack_steps(episodes[at : at + 100], gamma=1.0, dtype=dtype).inputs
            most = int(steps.time.max()) + 1
            found.append(memory.unroll(type(inputs)(*(x[:, :most] for x in inputs))))
        longest = max(x.shape[1] for x in found)
        features = torch.cat([F.pad(x, (0, 0, 0, longest - x.shape[1])) for x in found])
    return features[steps.episode, steps.time].double()


def read_out(features: Tensor, states: Tensor, n: int, train: Tensor, rng: np.random.Generator) -> Tensor:
    """[M, n], log P(s|h) by the linear read-out that fits the rows of `train` [M] bool best.

    Features are standardised; L-BFGS on the mean log-loss with a small penalty of the weights.
    """
    room = int(min(ROWS, max(1000, WORK / (features.shape[1] * n))))
    rows = np.flatnonzero(train.numpy())
    chosen = torch.as_tensor(np.sort(rng.permutation(rows)[:room]))
    x = features[chosen]
    scale = x.std(0, correction=0)
    scale = torch.where(scale < 1e-8, torch.ones_like(scale), scale)
    mean = x.mean(0)
    x, y = (x - mean) / scale, states[chosen]
    weight = torch.zeros(features.shape[1], n, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(n, dtype=torch.float64, requires_grad=True)
    fit = torch.optim.LBFGS([weight, bias], max_iter=150, history_size=20, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        fit.zero_grad()
        loss = F.cross_entropy(x @ weight + bias, y) + PENALTY * weight.square().sum()
        loss.backward()
        return loss

    fit.step(closure)  # pyright: ignore[reportArgumentType]
    with torch.no_grad():
        return ((features - mean) / scale @ weight + bias).log_softmax(-1)


def probe(
    problem: POMDP,
    memory: Memory,
    untrained: Memory | None,
    episodes: Sequence[Episode],
    seed: int,
    *,
    expected: bool = True,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """The four lines over the steps of the second half of the episodes, and their means over all steps.

    `expected`: over s_t ~ b_t, which is right where rewards tell nothing more; else of the s_t that were.
    """
    steps = steps_of(problem, episodes)
    S, _, O = problem.shape
    states, times = torch.as_tensor(steps.state), steps.time
    train = torch.as_tensor(steps.episode < len(episodes) // 2)
    tested = np.flatnonzero(~train.numpy())
    hidden = sparse.csr_matrix((np.ones(len(times)), (np.arange(len(times)), steps.state)), (len(times), S))
    truth: Any = (steps.beliefs if expected else hidden)[tested]

    def measured(guessed: np.ndarray, logp: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(right, loss) of each tested step; logp [M, S]."""
        right = np.asarray(truth[np.arange(len(tested)), guessed]).ravel()
        return right, -np.asarray(truth.multiply(logp).sum(1)).ravel()

    known: Any = steps.beliefs[tested]
    with np.errstate(divide="ignore"):
        sure = np.maximum(np.log(known.toarray()), -700)  # 0 log 0 is 0
    found = {"belief": measured(np.asarray(known.argmax(1)).ravel(), sure)}
    seen = F.one_hot(torch.as_tensor(steps.observation), O + 1).double()
    read = {"memory": memory, "untrained": untrained, "observation": None}
    for i, (name, module) in enumerate(read.items()):
        if name == "untrained" and module is None:
            continue
        features = seen if module is None else features_of(module, episodes, steps)
        logp = read_out(features, states, S, train, np.random.default_rng((seed, i))).numpy()[tested]
        found[name] = measured(logp.argmax(-1), logp)
        if progress is not None:
            progress(i + 1)
    times = times[tested]
    counts = np.bincount(times)
    kept = np.flatnonzero(counts >= min(FEW, counts[0]))
    lines = {
        name: {
            "accuracy": float(right.mean()),
            "cross_entropy": float(loss.mean()),
            "by_step": [float(right[times == t].mean()) for t in kept],
        }
        for name, (right, loss) in found.items()
    }
    return {
        "states": S,
        "episodes": len(episodes),
        "expected": expected,
        "steps": [int(t) for t in kept],
        "running": [int(counts[t]) for t in kept],
        "lines": lines,
    }
