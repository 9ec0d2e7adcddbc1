"""Small problems in which memory pays, written as code, each with the optimum that is known for it.

"Continuing" problems never end, "episodic" ones do. In all of them nothing is seen before the first action;
`POMDP.showing_initial` gives the other timing, and where values are known for both, both are given.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np

from turnwise.envs.pomdp import POMDP
from turnwise.envs.problems.rock_sample import rock_sample


def tiger(doors: int = 2, discount: float = 0.95, accuracy: float = 0.85) -> POMDP:
    """A tiger behind one of some doors, heard through a wall: listen (-1), or open (10, the tiger's -100).

    After a door is opened the tiger is placed anew. Listening names its door with probability `accuracy`,
    each other door alike. Continuing. V* = 19.3714 with the defaults, 1.93344 at discount 0.75.
    Source: Kaelbling, Littman & Cassandra 1998, section 5.2 ("The tiger problem").
    """
    if doors < 2 or not 0 <= accuracy <= 1:
        raise ValueError(f"{doors} doors, accuracy {accuracy}; expected two doors or more, and a probability")
    even = np.full((doors, doors), 1 / doors)
    heard = np.full((doors, doors), (1 - accuracy) / (doors - 1))
    np.fill_diagonal(heard, accuracy)
    found = np.full((doors, doors), 10.0)
    np.fill_diagonal(found, -100.0)
    names = ["left", "right"] if doors == 2 else [str(i) for i in range(doors)]
    return POMDP.from_arrays(
        np.stack([np.eye(doors), *[even] * doors]),
        np.stack([heard, *[even] * doors]),
        np.vstack([np.full(doors, -1.0), found]),
        discount=discount,
        start=np.full(doors, 1 / doors),
        states=[f"tiger-{n}" for n in names],
        actions=["listen", *[f"open-{n}" for n in names]],
        observations=[f"tiger-{n}" for n in names],
        name="tiger",
    )


def _moves(paths: Mapping[int, str], actions: str, states: int) -> np.ndarray:
    """[A, S, S] of a maze: `paths[s]` is like "N1 S7", the neighbours of s; other moves stay."""
    t = np.tile(np.eye(states), (len(actions), 1, 1))
    for s, path in paths.items():
        for step in path.split():
            t[actions.index(step[0]), s] = np.eye(states)[int(step[1:])]
    return t


def cheese_maze() -> POMDP:
    """McCallum's cheese maze: eleven cells, seven looks, the same walls in several places.

        0 1 2 3 4
        5   6   7      the cheese is in cell 10, entering it pays 1; the next step leads to
        8  10   9      one of the ten other cells, all alike

    Continuing. V* = 3.48621. With the first cell's look shown, the best deterministic policy without memory
    is worth 0.5577, the best stochastic one 2.0792.
    Source: McCallum 1993, "Overcoming incomplete perception with utile distinction memory"; cheese.95.POMDP.
    """
    paths = {0: "S5 E1", 1: "E2 W0", 2: "S6 E3 W1", 3: "E4 W2", 4: "S7 W3", 5: "N0 S8", 6: "N2 S10"}
    t = _moves({**paths, 7: "N4 S9", 8: "N5", 9: "N7"}, "NSEW", 11)
    start = np.append(np.full(10, 0.1), 0.0)
    t[:, 10] = start
    pays = np.zeros((4, 11, 11))
    pays[:, :, 10] = 1.0
    looks = np.eye(7)[[0, 1, 2, 1, 3, 4, 4, 4, 5, 5, 6]]
    return POMDP.from_arrays(
        t,
        np.tile(looks, (4, 1, 1)),
        pays,
        discount=0.95,
        start=start,
        actions=["N", "S", "E", "W"],
        name="cheese",
    )


def heaven_hell() -> POMDP:
    """Heaven is at one end of a corridor, hell at the other; a priest the other way knows which.

        4  3  2  5  6      the agent starts in 0, the priest is in 9; states 10 to 19 are the same places
              1            with heaven (4, then 16) and hell (6, then 14) exchanged
              0
              7  8  9

    Any action in heaven pays 1, in hell -1, and ends the episode. Episodic. V* = 0.99^10 = 0.904382: three
    steps to the priest, seven back to the end, one to be paid.
    Source: Thrun's problem as in Geffner & Bonet 1998, "Solving large POMDPs using real time DP".
    """
    paths = {0: "N1 S7", 1: "N2 S0", 2: "S1 E5 W3", 3: "E2 W4", 5: "E6 W2", 7: "N0 E8", 8: "W7 E9", 9: "W8"}
    for s, path in list(paths.items()):
        paths[s + 10] = " ".join(f"{step[0]}{int(step[1:]) + 10}" for step in path.split())
    t = _moves(paths, "NSEW", 21)
    last = [4, 6, 14, 16]
    t[:, last] = np.eye(21)[20]
    pays = np.zeros((4, 21))
    pays[:, last] = [1.0, -1.0, -1.0, 1.0]
    looks = np.eye(12)[[*range(10), *range(9), 10, 11]]
    return POMDP.from_arrays(
        t,
        np.tile(looks, (4, 1, 1)),
        pays,
        discount=0.99,
        start=np.where(np.isin(np.arange(21), [0, 10]), 0.5, 0.0),
        ends=np.arange(21) == 20,
        actions=["N", "S", "E", "W"],
        observations=[*(f"s{i}" for i in range(9)), "left", "right", "end"],
        name="heaven-hell",
    )


def t_maze(length: int) -> POMDP:
    """A sign at the start says which way to turn at the far end of a corridor of `length` cells.

    The right turn pays 4, the wrong one -0.1, and the episode ends. Discount 0.9. Episodic.
    V* = 4 * 0.9^(length + 2): one step to see the sign, length + 1 to the junction, then the turn; with the
    sign shown at the reset 4 * 0.9^(length + 1). Without memory the turn is a coin's: 1.95 in place of 4.
    Source: Bakker 2001; the numbers of the lambda-discrepancy paper's files (Allen et al. 2024).
    """
    if length < 0:
        raise ValueError(f"a corridor of {length} cells; expected 0 or more")
    S = 2 * (length + 2) + 1
    up, down, last = S - 3, S - 2, S - 1
    paths = {s: f"E{min(s + 2, s % 2 + up)} W{max(s - 2, s % 2)}" for s in range(last)}
    for s in (up, down):
        paths[s] += f" N{last} S{last}"
    pays = np.zeros((4, S))
    pays[:2, [up, down]] = [[4.0, -0.1], [-0.1, 4.0]]
    looks = np.eye(5)[[0, 1, *[2] * (2 * length), 3, 3, 4]]
    return POMDP.from_arrays(
        _moves(paths, "NSEW", S),
        np.tile(looks, (4, 1, 1)),
        pays,
        discount=0.9,
        start=np.where(np.arange(S) < 2, 0.5, 0.0),
        ends=np.arange(S) == last,
        actions=["N", "S", "E", "W"],
        observations=["turn-N", "turn-S", "corridor", "junction", "end"],
        name=f"t-maze-{length}",
    )


def light_dark(cells: int = 21, light: int = 5, discount: float = 0.9) -> POMDP:
    """Stop at 0 on a line, though one sees where one is only near the light, away from it.

    Cells go from -(cells // 2) to cells // 2; actions move by one or stop: 10 in cell 0, -10 elsewhere, and
    the episode ends. What is seen in cell y is y plus Gaussian noise of deviation |y - light| / sqrt(2) +
    0.01, rounded, the ends of the line taking the tails; the start is Gaussian around 2 with deviation 3,
    likewise. Episodic. V* is between 3.197 and 4.65 with the defaults (bounds of
    `turnwise.exact.sarsop.solve` after 40 s).
    Source: Platt et al. 2010; the numbers of LightDark1D in POMDPModels.jl, here in whole steps.
    """
    half = cells // 2
    if cells % 2 == 0 or abs(light) > half:
        raise ValueError(
            f"{cells} cells, light at {light}; expected an odd number, and the light on the line"
        )
    y = np.arange(-half, half + 1)
    S = len(y)
    looks = np.stack([_rounded_normal(c, abs(c - light) / math.sqrt(2) + 0.01, y) for c in y.tolist()])
    left, right = np.eye(S)[np.maximum(y + half - 1, 0)], np.eye(S)[np.minimum(y + half + 1, S - 1)]
    ends = np.zeros((3, S, S), bool)
    ends[2] = True
    names = [str(c) for c in y]
    return POMDP.from_arrays(
        np.stack([left, right, np.eye(S)]),
        np.tile(looks, (3, 1, 1)),
        np.stack([np.zeros(S), np.zeros(S), np.where(y == 0, 10.0, -10.0)]),
        discount=discount,
        start=_rounded_normal(2, 3.0, y),
        ends=ends,
        states=names,
        actions=["left", "right", "stop"],
        observations=names,
        name="light-dark",
    )


def _rounded_normal(mean: float, deviation: float, y: np.ndarray) -> np.ndarray:
    """[cells], a normal distribution rounded to the cells y; the ends take the tails."""
    edges = (y[:-1] + 0.5 - mean) / (deviation * math.sqrt(2))
    below = np.array([0.0, *(0.5 * (1 + math.erf(e)) for e in edges), 1.0])
    return np.diff(below) / np.diff(below).sum()


def airlock(gap: int = 1, discount: float = 0.95) -> POMDP:
    """Two doors, one locked for the whole episode; the agent stands at the left one and may try or walk over.

    Passing a door pays 1 and ends the episode; trying the locked one does nothing; the right door is `gap`
    steps away. A one-step model p(o'|o,a), fitted to first tries, says that the left door opens half the
    time, whenever it is tried: it values trying again and again at 0.5 / (1 - 0.5 * discount) = 0.952, and
    gets 0.5. Only a memory of earlier tries says that a door is locked. Episodic.
    V* = 0.5 + 0.5 * discount^(gap + 1) = 0.95125 with the defaults.
    """
    if gap < 1:
        raise ValueError(f"a gap of {gap} steps; expected 1 or more")
    n = gap + 1
    S, out = 2 * n + 1, 2 * n
    t = np.tile(np.eye(S), (3, 1, 1))
    for s in range(out):
        here, there = s % n, s - s % n
        t[1, s] = np.eye(S)[there + max(here - 1, 0)]
        t[2, s] = np.eye(S)[there + min(here + 1, gap)]
    opens = [0, 2 * n - 1]
    t[0, opens] = np.eye(S)[out]
    pays = np.zeros((3, S))
    pays[0, opens] = 1.0
    places = ["left-door", *(f"between-{i}" for i in range(1, gap)), "right-door"]
    return POMDP.from_arrays(
        t,
        np.tile(np.eye(n + 1)[[*range(n), *range(n), n]], (3, 1, 1)),
        pays,
        discount=discount,
        start=np.where(np.isin(np.arange(S), [0, n]), 0.5, 0.0),
        ends=np.arange(S) == out,
        states=[*(f"left-opens,{p}" for p in places), *(f"right-opens,{p}" for p in places), "out"],
        actions=["try", "walk-left", "walk-right"],
        observations=[*places, "out"],
        name="airlock",
    )


def corridor() -> POMDP:
    """Three cells that look the same, -1 a step, and in the middle one left and right are exchanged.

    Discount 1. Episodic. V* = -3 (right, left, right: a plan needs no eyes). Without memory the best policy
    goes right with probability 2 - sqrt(2) = 0.586 and is worth -(6 + 4 sqrt(2)) = -11.657; every
    deterministic one never arrives.
    Source: Sutton & Barto 2018, example 13.1 ("Short corridor with switched actions").
    """
    t = _moves({0: "R1", 1: "L2 R0", 2: "L1 R3"}, "LR", 4)
    pays = np.tile([-1.0, -1.0, -1.0, 0.0], (2, 1))
    return POMDP.from_arrays(
        t,
        np.tile(np.eye(2)[[0, 0, 0, 1]], (2, 1, 1)),
        pays,
        discount=1.0,
        start=np.array([1.0, 0.0, 0.0, 0.0]),
        ends=np.arange(4) == 3,
        actions=["left", "right"],
        observations=["cell", "end"],
        name="corridor",
    )


CLASSICS: dict[str, Callable[[], POMDP]] = {
    "tiger": tiger,
    "cheese": cheese_maze,
    "heaven-hell": heaven_hell,
    "t-maze-2": partial(t_maze, 2),
    "t-maze-5": partial(t_maze, 5),
    "light-dark": light_dark,
    "airlock": airlock,
    "corridor": corridor,
    "rock-sample-4-4": partial(rock_sample, 4, 4),
    "rock-sample-5-5": partial(rock_sample, 5, 5),
    "rock-sample-7-8": partial(rock_sample, 7, 8),
}
"""names of problems for the command line"""
