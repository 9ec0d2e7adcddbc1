"""The rules of the maze as numbers: its cells, what a move does, what it costs, and what is seen where.

The plan is the double T maze of LMRL-Gym (Abdulhai et al. 2023, arXiv:2311.18232): 26 cells, one goal.
"""

from __future__ import annotations

from functools import cache
from typing import Literal

Cell = tuple[int, int]
"""row and column, from 0"""
Move = Literal["up", "down", "left", "right", "none"]
Observed = Literal["full", "part"]
Sight = Cell | tuple[str, ...]
"""what an observation tells: the cell, or the sides on which there are walls"""

PLAN = (
    "#############",
    "#.....#.....#",
    "###.#####.###",
    "###.#####.###",
    "###.#####.###",
    "###.......###",
    "######.######",
    "######.######",
    "######.######",
    "#############",
)
GOAL: Cell = (8, 6)
CELLS = tuple((r, c) for r, line in enumerate(PLAN) for c, mark in enumerate(line) if mark == ".")
STARTS = tuple(cell for cell in CELLS if cell != GOAL)
"""a conversation begins in one of them, all alike"""

STEPS: dict[str, Cell] = {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}
MOVES: tuple[Move, ...] = ("up", "down", "left", "right")
NONE: Move = "none"
"""what nobody understood: it moves nothing"""

STEP = -1.0  # what a move earns, also one against a wall, which leads nowhere; the one to the goal earns 0
UNREAD = -4.0  # what is earned by something that is no move
HORIZON = 100  # moves after which a conversation is cut

_LEFT = {*((1, c) for c in range(1, 6)), *((r, 3) for r in range(2, 6))}
PARTS: dict[str, frozenset[Cell]] = {
    "left": frozenset(_LEFT),
    "right": frozenset((r, 12 - c) for r, c in _LEFT),
    "lower": frozenset({*((5, c) for c in range(3, 10)), *((r, 6) for r in range(6, 9))}),
}
"""parts of the maze that logged conversations stay in; (5, 3) and (5, 9) belong to two of them"""


def after(cell: Cell, move: Move) -> Cell:
    """Where a move leads: to the next cell, or nowhere if there is a wall or it is no move."""
    if move == NONE:
        return cell
    down, across = STEPS[move]
    there = (cell[0] + down, cell[1] + across)
    return there if PLAN[there[0]][there[1]] == "." else cell


def earned(there: Cell, move: Move) -> float:
    """The reward of a move that led there."""
    if move == NONE:
        return UNREAD
    return 0.0 if there == GOAL else STEP


@cache
def walls(cell: Cell) -> tuple[str, ...]:
    """The sides on which there is a wall, in the order of `MOVES`."""
    return tuple(move for move in MOVES if after(cell, move) == cell)


def sight(cell: Cell, observed: Observed) -> Sight:
    """What is told of a cell."""
    return cell if observed == "full" else walls(cell)


def named(seen: Sight) -> str:
    """The act of an observation: "at 5 3", or "walls down left"."""
    row, *_ = seen
    words = " ".join(map(str, seen))
    return f"at {words}" if isinstance(row, int) else f"walls {words}"
