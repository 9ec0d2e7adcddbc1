"""RockSample[n, k]: a rover knows where k rocks lie on an n by n map, but not which are worth a sample.

Source: Smith & Simmons 2004, "Heuristic search value iteration for POMDPs", section 5; numbers as in the
files of Trey Smith's generator.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from turnwise.envs.pomdp import POMDP
from turnwise.envs.rows import Rows


@dataclass(frozen=True)
class RockMap:
    """A map: the places of the rocks and the range of the sensor."""

    rocks: tuple[tuple[int, int], ...]
    """(x, y) of each; x grows to the east, y to the north"""
    half_distance: float = 20.0
    """at this distance the sensor's efficiency is 1/2, and it is right with probability 3/4"""


STANDARD = {
    (4, 4): RockMap(((3, 1), (2, 1), (1, 3), (1, 0)), math.log(2)),
    (5, 5): RockMap(((2, 4), (0, 4), (3, 3), (2, 2), (4, 1)), 4.0),
    (7, 8): RockMap(((2, 0), (0, 1), (3, 1), (6, 3), (2, 4), (3, 4), (5, 5), (1, 6))),
}
"""the maps of the published files; the efficiency is e^-d in [4,4], 2^(-d/4) in [5,5], 2^(-d/20) in [7,8]"""


def rock_sample(
    n: int,
    k: int,
    *,
    rocks: Sequence[tuple[int, int]] | None = None,
    half_distance: float | None = None,
    discount: float = 0.95,
    seed: int = 0,
) -> POMDP:
    """RockSample[n, k] as a POMDP with n * n * 2^k + 1 states.

    Actions move (north, east, south, west), check a rock from afar, or sample the rock underfoot: +10 for a
    good one, which is then bad, -10 for a bad one. Leaving to the east pays 10 and ends the episode; leaving
    elsewhere and sampling where no rock is cost 100 and end it. A check of a rock at distance d says the
    truth with probability (1 + 2^(-d / half_distance)) / 2. The rover starts at (0, n // 2), each rock is
    good with probability 1/2.

    Episodic; nothing is seen before the first action. Optimal values: [4,4] 17.9245; [5,5] from 19.237 to
    20.66; [7,8] from 21.142 to 24.5 (published policies reach 21.27 to 21.47). Without `rocks`, [4,4], [5,5]
    and [7,8] have the published maps; other maps are drawn from `seed`.
    """
    if n < 1 or not 0 <= k <= n * n or n * n << k > 2_000_000:
        raise ValueError(
            f"rock_sample({n}, {k}); expected at most n * n rocks and n * n * 2^k at most 2,000,000"
        )
    standard = STANDARD.get((n, k), RockMap(())) if rocks is None else RockMap(tuple(rocks))
    here = list(standard.rocks)
    if rocks is None and not here and k:
        cells = np.random.default_rng(seed).choice(n * n, k, replace=False)
        here = [divmod(int(cell), n) for cell in cells]
    if len(set(here)) != k or not all(0 <= x < n and 0 <= y < n for x, y in here):
        raise ValueError(f"rocks {here}; expected {k} different places (x, y) from 0 to {n - 1}")
    return _build(
        n, np.array(here, np.int64).reshape(k, 2), half_distance or standard.half_distance, discount
    )


def _build(n: int, rocks: np.ndarray, half_distance: float, discount: float) -> POMDP:
    k = len(rocks)
    worlds = 1 << k
    S, A = n * n * worlds + 1, 5 + k
    over = S - 1
    state = np.arange(over)  # (x * n + y) * worlds + world; the bits of a world say which rocks are good
    place, world = np.divmod(state, worlds)
    x, y = np.divmod(place, n)
    to = np.tile(np.append(state, over), (A, 1))  # checks stay
    pays = np.zeros((A, S))
    for a, (dx, dy) in enumerate(((0, 1), (1, 0), (0, -1), (-1, 0))):
        inside = (x + dx >= 0) & (x + dx < n) & (y + dy >= 0) & (y + dy < n)
        to[a, :over] = np.where(inside, state + (dx * n + dy) * worlds, over)
        pays[a, :over] = np.where(inside, 0.0, 10.0 if dx == 1 else -100.0)
    rock = np.full(n * n, -1)
    rock[rocks[:, 0] * n + rocks[:, 1]] = np.arange(k)
    under = rock[place]
    bit = np.where(under >= 0, 1 << np.maximum(k - 1 - under, 0), 0)
    good = world & bit != 0
    to[-1, :over] = np.where(under >= 0, state - np.where(good, bit, 0), over)
    pays[-1, :over] = np.where(under >= 0, np.where(good, 10.0, -10.0), -100.0)
    start = np.zeros(S)
    start[(n // 2) * worlds : (n // 2 + 1) * worlds] = 1 / worlds
    ends = to.ravel() == over
    return POMDP(
        states=_names(n, k),
        actions=("amn", "ame", "ams", "amw", *(f"ac{i}" for i in range(k)), "as"),
        observations=("ogood", "obad"),
        discount=discount,
        start=start,
        transitions=Rows(np.arange(A * S + 1), to.ravel(), np.ones(A * S), S),
        emissions=_sensor(n, rocks, half_distance),
        rewards=pays.ravel(),
        ends=ends,
        name=f"RockSample_{n}_{k}",
    )


def _sensor(n: int, rocks: np.ndarray, half_distance: float) -> Rows:
    """[A*S, 2], the probability of "good" and "bad". Actions that are no checks always say "good"."""
    k = len(rocks)
    worlds = 1 << k
    S, A = n * n * worlds + 1, 5 + k
    cell = np.stack(np.divmod(np.arange(n * n), n), 1)
    distance = np.sqrt(((cell[:, None] - rocks) ** 2).sum(-1))  # [n*n, k]
    right = (1 + 2 ** (-distance / half_distance)) / 2
    good = (np.arange(worlds)[:, None] >> np.arange(k)[::-1]) & 1  # [worlds, k]
    says_good = np.ones((A, S))
    seen = np.where(good[None] == 1, right[:, None], 1 - right[:, None])  # [n*n, worlds, k]
    says_good[4 : 4 + k, :-1] = seen.reshape(S - 1, k).T
    both = np.stack([says_good, 1 - says_good], -1).reshape(A * S, 2)
    return Rows.from_dense(both)


def _names(n: int, k: int) -> tuple[str, ...]:
    """As in the files: s, x, y, one digit per rock (1: good); "st" is the state after the end."""
    worlds = [format(w, f"0{k}b") if k else "" for w in range(1 << k)]
    between = "" if n <= 10 else "_"
    cells = [f"s{x}{between}{y}{between}" for x in range(n) for y in range(n)]
    return (*(cell + world for cell in cells for world in worlds), "st")
