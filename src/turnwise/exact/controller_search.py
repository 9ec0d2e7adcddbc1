"""The best policies of limited memory: by enumeration, and by ascent along exact gradients from many starts.

Finding the best one is NP-hard (Littman 1994, "Memoryless policies: theoretical limitations and practical
results"), and a stochastic memoryless policy can be better than every deterministic one (Singh, Jaakkola &
Jordan 1994). So there are two searches: enumeration, which is exact and only for small problems, and ascent,
whose result is a lower bound together with a controller that attains it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from turnwise.envs.pomdp import POMDP
from turnwise.exact.controllers import Chain, Controller, through_softmax
from turnwise.run.errors import InputError

MOST_POLICIES = 5_000_000
"""largest number of policies that are enumerated"""

WORST = 1e20
"""Loss of a policy without a finite value. L-BFGS backs off from it; inf would end its line search with
NaN."""

Progress = Callable[[int, int, float], None]
"""called with (starts done, starts in all, best value so far)"""


@dataclass(frozen=True)
class Best:
    """The best controller that was found."""

    controller: Controller
    value: float
    """its exact return J"""
    values: tuple[float, ...]
    """the value that each start led to, in order; a single value if all policies were enumerated"""


def best_deterministic_memoryless(problem: POMDP, most: int = MOST_POLICIES) -> Best:
    """The best function from inputs to actions, by enumerating all of them; ties go to the first.

    Only inputs that can occur are enumerated. `null` is not: it is read once, so its action is the best one
    given the others, argmax_a sum_s P(s_0 = s) Q(a, s). At discount 1 policies that never end count as -inf
    (or inf).
    """
    chain = Chain(problem)
    A = problem.shape[1]
    inputs = inputs_that_occur(chain)
    null = problem.initial is None
    if null and problem.discount < 1:
        inputs = inputs[:-1]
    if A ** len(inputs) > most:
        raise InputError(
            f"{problem.name or 'the problem'} has {A}^{len(inputs)} = {A ** len(inputs):,} deterministic "
            f"memoryless policies; at most {most:,} are enumerated. best_stochastic_memoryless gives a lower "
            "bound that is often met by a deterministic policy"
        )
    chain.probabilities_of(
        Controller.memoryless(np.full((chain.inputs, A), 1 / A))
    )  # an error for what is too large
    best, value = None, -np.inf
    for policies in _deterministic(chain, inputs):
        found = _values_discounted(chain, policies) if problem.discount < 1 else _values(chain, policies)
        i = int(np.argmax(found))
        if best is None or found[i] > value:
            best, value = policies[i], float(found[i])
    assert best is not None
    return Best(Controller(best), value, (value,))


def inputs_that_occur(chain: Chain) -> np.ndarray:
    """The inputs that some policy may read, in rising order."""
    A = chain.problem.shape[1]
    uniform = np.full((1, chain.inputs, A, 1), 1 / A)
    P = chain.systems(uniform[None])[0][0]
    reached = chain.visits_after_first(uniform) > 0
    while (grown := reached | (P[reached] > 0).any(0)).sum() > reached.sum():
        reached = grown
    seen = (chain.emissions.reshape(-1, chain.inputs)[reached] > 0).any(0)
    return np.flatnonzero(seen | (chain.first > 0).any(0))


def _deterministic(chain: Chain, inputs: np.ndarray) -> Iterator[np.ndarray]:
    """All deterministic memoryless policies, in batches [B, 1, I, A, 1]; other inputs get action 0."""
    S, A, _ = chain.problem.shape
    n = len(chain.emissions) * S
    size = max(1, 2_000_000 // (n * n))  # B, so that the systems [B, n, n] take 16 MB
    count = A ** len(inputs)
    for at in range(0, count, size):
        numbers = np.arange(at, min(at + size, count))
        actions = np.zeros((len(numbers), chain.inputs), np.int64)
        for i in inputs[::-1]:  # a policy is a number in base A, one digit per input
            numbers, actions[:, i] = np.divmod(numbers, A)
        yield np.eye(A)[actions][:, None, :, :, None]


def _values_discounted(chain: Chain, policies: np.ndarray) -> np.ndarray:
    """[B], J of deterministic memoryless policies; sets their action for `null` to the best one."""
    P, r = chain.systems(policies)
    W = np.linalg.solve(np.eye(P.shape[-1]) - P, r[..., None])[..., 0]
    q = chain.q(W)[:, 0]  # [B, A, S]
    if chain.problem.initial is None:
        first = q @ chain.problem.start
        policies[:, 0, -1, :, 0] = np.eye(q.shape[1])[first.argmax(1)]
        return first.max(1)
    return np.einsum("si,bia,bas->b", chain.first, policies[:, 0, :, :, 0], q, optimize=True)


def _values(chain: Chain, policies: np.ndarray) -> np.ndarray:
    """[B], J of policies, one by one: at discount 1 each has nodes of its own where it never ends."""
    return np.array([_value(chain, p) for p in policies])


def best_stochastic_memoryless(
    problem: POMDP,
    rng: np.random.Generator,
    starts: int = 24,
    *,
    progress: Progress | None = None,
    seconds: float = np.inf,
) -> Best:
    """The best memoryless policy that ascent finds, drawing actions with P(a|input): a lower bound.

    The first start is near the best deterministic policy if those are few enough to enumerate; the others are
    random. After `seconds` the best so far is returned.
    """
    return best_controller(problem, 1, rng, starts, progress=progress, seconds=seconds)


def best_controller(
    problem: POMDP,
    nodes: int,
    rng: np.random.Generator,
    starts: int = 48,
    *,
    progress: Progress | None = None,
    seconds: float = np.inf,
) -> Best:
    """The best controller of `nodes` memories that L-BFGS over softmax logits finds: a lower bound.

    Its gradient is exact (`controllers`), and many starts are needed, since J may have many local maxima.
    """
    if nodes < 1 or starts < 1:
        raise InputError(f"nodes is {nodes} and starts is {starts}; expected at least 1 of each")
    chain = Chain(problem)
    shape = (nodes, chain.inputs, problem.shape[1], nodes)
    even = np.full(shape, 1 / (shape[2] * nodes))
    chain.probabilities_of(Controller(even))
    solved = chain.solvable(even)
    deadline = time.monotonic() + seconds
    best, value = even, chain.value(even)
    values: list[float] = []
    for i in range(starts):
        if values and time.monotonic() > deadline:
            break
        p = _snapped(chain, _ascend(chain, _start(chain, shape, i, rng), solved, deadline))
        values.append(_value(chain, p))
        if values[-1] > value:
            best, value = p, values[-1]
        if progress is not None:
            progress(i + 1, starts, value)
    return Best(Controller(best), value, tuple(values))


def _start(chain: Chain, shape: tuple[int, ...], i: int, rng: np.random.Generator) -> np.ndarray:
    """Logits [K, I, A, K] to begin from: near the best deterministic policy, or at random, flat or steep."""
    scale = (1.0, 0.3, 3.0)[i % 3]  # flat starts explore, steep ones begin near deterministic policies
    logits = rng.normal(0, scale, shape)
    if i == 0:
        try:
            policy = best_deterministic_memoryless(chain.problem, 20_000).controller.probabilities
        except InputError:  # too many
            return logits
        logits += np.log(0.9 * policy + 0.1 / policy.shape[2])  # [1, I, A, 1], the same in all memories
    return logits


def _ascend(chain: Chain, logits: np.ndarray, solved: np.ndarray, deadline: float) -> np.ndarray:
    """[K, I, A, K], probabilities where ascent from logits ends, or is at the deadline (time.monotonic)."""
    scale = max(np.abs(chain.rewards).max(), 1e-12)  # tolerances of L-BFGS are absolute

    def loss(x: np.ndarray) -> tuple[float, np.ndarray]:
        p = Controller.from_logits(x.reshape(logits.shape)).probabilities
        try:
            value, gradient = chain.value_and_gradient(p, solved)
        except InputError:  # at discount 1, a step so long that nothing ends any more
            return WORST, np.zeros(logits.size)
        return -value / scale, -through_softmax(p, gradient).reshape(-1) / scale

    def stop(_: np.ndarray) -> None:
        if time.monotonic() > deadline:
            raise StopIteration

    options = {"maxiter": 2000, "maxfun": 4000, "ftol": 1e-13, "gtol": 1e-9, "maxcor": 20}
    found = minimize(loss, logits.reshape(-1), jac=True, method="L-BFGS-B", callback=stop, options=options)
    return Controller.from_logits(found.x.reshape(logits.shape)).probabilities


def _value(chain: Chain, p: np.ndarray) -> float:
    """J, or -inf if it is undefined or lost in rounding, as it can be at discount 1."""
    try:
        return chain.value(p)
    except InputError:
        return -np.inf


def _snapped(chain: Chain, p: np.ndarray) -> np.ndarray:
    """The policy with small probabilities set to 0 (which softmax never reaches), if that is no worse."""
    best, value = p, _value(chain, p)
    for small in (1e-4, 0.01, 0.1, 0.5):
        kept = np.where(p < np.minimum(small, p.max((2, 3), keepdims=True)), 0.0, p)
        kept /= kept.sum((2, 3), keepdims=True)
        if (found := _value(chain, kept)) >= value:
            best, value = kept, found
    return best
