"""What an agent's memory knows about the hidden state, beside what could be known.

The agent plays. Its features h_t (what its head reads), the hidden states s_t and the exact beliefs b_t are
kept. A linear read-out P(s|h) = softmax(W h + c) is fitted by maximum likelihood on half of the episodes and
measured on the other half, step by step:

    memory        the read-out of the agent's own features
    untrained     the same memory with fresh weights, reading the same histories
    observation   the read-out of the last observation alone
    belief        argmax_s b_t(s): actions and observations tell no more than this

Accuracy is the share of right guesses, cross-entropy is -mean log P(s_t) in nats. If rewards tell nothing
more, both are expectations over s_t ~ b_t, which are exact and less noisy: a guess s counts b_t(s), and no
reader can be above the belief except by chance in the read-out's fit. Linear probes: Alain & Bengio
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
from turnwise.models.memory.base import Memory

STEPS = 40
"""steps of each episode that are probed"""
MOST_STATES = 400
"""states of a problem whose agents are probed, at most"""
FEW = 20
"""a step is left out if fewer episodes of the second half still run then"""
ROWS = 10_000
"""steps that a read-out is fitted to, at most"""
WORK = 3e7
"""rows * features * states of a fit, at most"""
PENALTY = 1e-5
"""weight of the read-out's squared weights, beside the mean log-loss of a row"""


def beliefs_along(
    problem: POMDP, episodes: Sequence[Episode], steps: int
) -> Iterator[tuple[np.ndarray, Any]]:
    """For each step t below `steps`: which episodes run [n], and their exact beliefs before action t [n, S].

    Beliefs follow from actions and observations; rewards are not read.
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
    """M steps of many episodes, as columns."""

    episode: np.ndarray
    """index of the episode [M]"""
    time: np.ndarray
    """step within the episode, from 0 [M]"""
    state: np.ndarray
    """hidden state [M]"""
    observation: np.ndarray
    """the last observation [M]"""
    beliefs: Any
    """exact beliefs, sparse [M, S]"""


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
        raise ValueError("a probe needs hidden states; this environment does not give them")
    return episode.states


def features_of(memory: Memory, episodes: Sequence[Episode], steps: Steps) -> Tensor:
    """The memory's features at those steps, [M, D] float64."""
    dtype = next(memory.parameters(), torch.zeros(())).dtype
    found = []
    with torch.inference_mode():
        for at in range(0, len(episodes), 100):  # a hundred episodes at a time, to bound memory
            inputs = pack_steps(episodes[at : at + 100], gamma=1.0, dtype=dtype).inputs
            most = int(steps.time.max()) + 1
            found.append(memory.unroll(type(inputs)(*(x[:, :most] for x in inputs))))
        longest = max(x.shape[1] for x in found)
        features = torch.cat([F.pad(x, (0, 0, 0, longest - x.shape[1])) for x in found])
    return features[steps.episode, steps.time].double()


def read_out(features: Tensor, states: Tensor, n: int, train: Tensor, rng: np.random.Generator) -> Tensor:
    """log P(s|h) [M, n] by the linear read-out that best fits the rows of `train` [M] bool.

    Features are standardised. L-BFGS minimises the mean log-loss plus PENALTY times the squared weights.
    """
    room = int(min(ROWS, max(1000, WORK / (features.shape[1] * n))))
    rows = np.flatnonzero(train.numpy())
    chosen = torch.as_tensor(np.sort(rng.permutation(rows)[:room]))
    x = features[chosen]
    scale = x.std(0, correction=0)
    # A feature that never changes has no scale; leave it as it is.
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


def probe_memory(
    problem: POMDP,
    memory: Memory,
    untrained: Memory | None,
    episodes: Sequence[Episode],
    seed: int,
    *,
    expected: bool = True,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Accuracy and cross-entropy of the four readers, by step and over all steps, on the second half of the
    episodes.

    `expected`: measure in expectation over s_t ~ b_t, which is right if rewards tell no more than the
    observations; otherwise measure against the states that occurred.
    """
    steps = steps_of(problem, episodes)
    S, _, O = problem.shape
    states, times = torch.as_tensor(steps.state), steps.time
    # Whole episodes go to one half: steps of one episode are too alike to be trained on and tested with.
    train = torch.as_tensor(steps.episode < len(episodes) // 2)
    tested = np.flatnonzero(~train.numpy())
    hidden = sparse.csr_matrix((np.ones(len(times)), (np.arange(len(times)), steps.state)), (len(times), S))
    truth: Any = (steps.beliefs if expected else hidden)[tested]

    def measure(guessed: np.ndarray, logp: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Whether each tested step was guessed right, and its log-loss; logp [tested, S]."""
        right = np.asarray(truth[np.arange(len(tested)), guessed]).ravel()
        return right, -np.asarray(truth.multiply(logp).sum(1)).ravel()

    known: Any = steps.beliefs[tested]
    with np.errstate(divide="ignore"):
        # log 0 is -inf, and 0 * -inf is nan where 0 log 0 should be 0: any finite number will do.
        log_belief = np.maximum(np.log(known.toarray()), -700)
    found = {"belief": measure(np.asarray(known.argmax(1)).ravel(), log_belief)}
    one_hot = F.one_hot(torch.as_tensor(steps.observation), O + 1).double()
    readers = {"memory": memory, "untrained": untrained, "observation": None}
    for i, (name, module) in enumerate(readers.items()):
        if name == "untrained" and module is None:
            continue
        features = one_hot if module is None else features_of(module, episodes, steps)
        logp = read_out(features, states, S, train, np.random.default_rng((seed, i))).numpy()[tested]
        found[name] = measure(logp.argmax(-1), logp)
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
