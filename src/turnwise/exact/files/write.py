"""Writing `.pomdp` files so that `read_pomdp` gives back the same numbers, bit for bit."""

from __future__ import annotations

import contextlib
import gzip
import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from turnwise.envs.pomdp import POMDP
from turnwise.envs.rows import Rows
from turnwise.exact.files.rules import idle_states
from turnwise.run.errors import InputError


def write_pomdp(problem: POMDP, path: str | Path) -> None:
    """Write a problem, whole or not at all; if the name ends in .gz, packed.

    `ends` becomes rows of `reset` (if they are the start distribution), `goals:` (states that every
    transition into ends in), or nothing (states in which nothing can happen any more, see `read_pomdp`).
    Entries of probability 0, and rewards of what is never seen, are left out. What the format cannot say is
    an InputError: other ends, an observation before the first action, names with spaces.
    """
    path = Path(path)
    lines = [*_header(problem, path), *_tables(problem, path)]
    data = ("\n".join(lines) + "\n").encode()
    if path.suffix == ".gz":
        data = gzip.compress(data, compresslevel=6, mtime=0)
    part = path.with_name(path.name + ".part")
    try:
        part.write_bytes(data)
        os.replace(part, path)
    except OSError as e:
        raise InputError(f"{path}: cannot be written ({e.strerror})") from e
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def _names(section: str, names: tuple[str, ...], path: Path) -> str:
    if names == tuple(str(i) for i in range(len(names))):
        return f"{section}: {len(names)}"
    for name in names:
        if not re.fullmatch(r"[^\s:#*]+", name):
            raise InputError(
                f"{path}: {section}: {name!r} cannot be written; expected no spaces and none of : # *"
            )
    if len(set(names)) < len(names) or (len(names) == 1 and re.fullmatch(r"[-+.\d].*", names[0])):
        raise InputError(f"{path}: {section}: {names[0]!r} cannot be written; expected different names")
    return f"{section}: {' '.join(names)}"


def _header(problem: POMDP, path: Path) -> Iterator[str]:
    if problem.initial is not None:
        raise InputError(f"{path}: the format has no observation before the first action (`initial`)")
    if problem.name:
        yield "# " + " ".join(problem.name.split())
    yield f"discount: {float(problem.discount)!r}"
    yield "values: reward"
    yield _names("states", problem.states, path)
    yield _names("actions", problem.actions, path)
    yield _names("observations", problem.observations, path)
    yield "start: " + " ".join("0" if p == 0 else repr(p) for p in problem.start.tolist())


def _tables(problem: POMDP, path: Path) -> Iterator[str]:
    goals, resets = _ends(problem, path)
    if goals:
        yield "goals: " + " ".join(problem.states[s] for s in goals)
    yield from _probabilities("T", problem.transitions, problem, problem.states, resets)
    yield from _probabilities("O", problem.emissions, problem, problem.observations, frozenset())
    yield "R: * : * : * : * 0"
    yield from _rewards(problem) if problem.seen_rewards is None else _seen_rewards(problem)


def _probabilities(
    letter: str, rows: Rows, problem: POMDP, columns: tuple[str, ...], resets: frozenset[int]
) -> Iterator[str]:
    S = len(problem.states)
    for row in range(len(rows)):
        action, state = divmod(row, S)
        place = f"{letter}: {problem.actions[action]} : {problem.states[state]}"
        if row in resets:
            yield f"{place} reset"
            continue
        at, chance = rows.row(row)
        for column, p in zip(at.tolist(), chance.tolist(), strict=True):
            if p:
                yield f"{place} : {columns[column]} {p!r}"


def _rewards(problem: POMDP) -> Iterator[str]:
    """One line for a row whose transitions all pay the same; otherwise one for each that pays."""
    t, S = problem.transitions, len(problem.states)
    for row in np.unique(t.of_entries()[problem.rewards != 0]).tolist():
        action, state = divmod(row, S)
        place = f"R: {problem.actions[action]} : {problem.states[state]}"
        here = slice(t.indptr[row], t.indptr[row + 1])
        paid = problem.rewards[here].tolist()
        if len(set(paid)) == 1:
            yield f"{place} : * : * {paid[0]!r}"
            continue
        for reached, r in zip(t.indices[here].tolist(), paid, strict=True):
            if r:
                yield f"{place} : {problem.states[reached]} : * {r!r}"


def _seen_rewards(problem: POMDP) -> Iterator[str]:
    t, S, seen = problem.transitions, len(problem.states), problem.seen_rewards
    assert seen is not None
    row = t.of_entries()
    for entry in range(len(seen)):
        action, state = divmod(int(row[entry]), S)
        place = f"R: {problem.actions[action]} : {problem.states[state]} : {problem.states[t.indices[entry]]}"
        observations, paid = seen.row(entry)
        for o, r in zip(observations.tolist(), paid.tolist(), strict=True):
            yield f"{place} : {problem.observations[o]} {r!r}"


def _ends(problem: POMDP, path: Path) -> tuple[list[int], frozenset[int]]:
    """(states for `goals:`, rows of `reset`); together with idle states they say the same as `ends`."""
    t, S = problem.transitions, len(problem.states)
    row, column, ends = t.of_entries(), t.indices, problem.ends
    real = t.data > 0
    entered = np.bincount(column[real], minlength=S)
    last = (entered > 0) & (np.bincount(column[real & ends], minlength=S) == entered)
    idle = idle_states(t, problem.rewards, problem.seen_rewards)
    restarts = _restarts(problem)
    known = idle[column] | last[column] | restarts[row]
    wrong = np.flatnonzero(real & (ends != known))
    if len(wrong):
        action, state = divmod(int(row[wrong[0]]), S)
        raise InputError(
            f"{path}: that action {problem.actions[action]} from state {problem.states[state]} to "
            f"{problem.states[column[wrong[0]]]} {'ends' if ends[wrong[0]] else 'does not end'} the episode "
            "cannot be written; expected ends by the state entered or with the start distribution following"
        )
    return np.flatnonzero(last & ~idle).tolist(), frozenset(np.flatnonzero(restarts).tolist())


def _restarts(problem: POMDP) -> np.ndarray:
    """[A*S] bool, rows that are the start distribution and whose entries all end the episode."""
    t = problem.transitions
    states = np.flatnonzero(problem.start)
    chance = problem.start[states]
    row = t.of_entries()
    ending = np.bincount(row[problem.ends], minlength=len(t)) == np.diff(t.indptr)
    found = np.zeros(len(t), bool)
    for i in np.flatnonzero(ending & (np.diff(t.indptr) == len(states))).tolist():
        at, p = t.row(i)
        found[i] = np.array_equal(at, states) and np.array_equal(p, chance)
    return found
