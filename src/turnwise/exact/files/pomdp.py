"""Reading `.pomdp` files, the text format of Anthony Cassandra's pomdp-solve, as they are really written.

Source: https://www.pomdp.org/code/pomdp-file-spec.html and the grammar of pomdp-solve (parser.y). Headers
come in any order before the first table, colons with or without spaces, line breaks anywhere. Of two lines
about the same place the later one holds, in T, O and R alike. An absent `discount:` is 1, an absent `start:`
uniform, an absent `values:` reward; `values: cost` changes the sign of R. Where names are declared, numbers
are allowed too.

What is beyond Cassandra's description:

- `T: a : s reset`: the episode ends, and the row is the start distribution (pomdp-solve, gym-pomdps).
- `goals: s ...`: entering one of these states ends the episode (gpt-rewards).
- A state that all actions leave where it is, with nothing to gain or lose, ends the episode when it is
  entered. No policy is worth more or less for it, and environments terminate instead of idling for ever.
- Rows of probabilities that are off by at most 1e-4 are divided by their sum, with one warning for the file.

`seen_rewards` holds rewards of observations that can be seen after a transition, and is None where no reward
depends on what is seen.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np

from turnwise.envs.pomdp import POMDP
from turnwise.envs.rows import Rows
from turnwise.exact.files.parse import SECTIONS, Parser
from turnwise.exact.files.rules import ANY, SLACK, each_sight, idle_states, normalized, over_sights
from turnwise.exact.files.words import TABLES
from turnwise.run.errors import InputError


def read_pomdp(path: str | Path) -> POMDP:
    """The problem in a `.pomdp` file, plain or gzip; whatever is wrong with it is an InputError."""
    path = Path(path)
    said = Parser(path)
    said.read()
    _expect_all_sections(said)
    start = said.start()
    transitions, rule, divided_t = _probabilities(said, "T")
    emissions, _, divided_o = _probabilities(said, "O")
    divided = said.start_divided + divided_t + divided_o
    if divided:
        warnings.warn(
            f"{path}: {divided} row{'s' if divided > 1 else ''} of probabilities did not sum to 1 and "
            f"{'were' if divided > 1 else 'was'} divided by the sum",
            UserWarning,
            stacklevel=2,
        )
    rewards, seen = _rewards(said, transitions, emissions)
    resets = np.zeros(len(said.tables["T"]), bool)
    resets[list(said.tables["T"].marked)] = True
    last = idle_states(transitions, rewards, seen)
    last[said.goal_states()] = True
    return POMDP(
        states=said.names["state"],
        actions=said.names["action"],
        observations=said.names["observation"],
        discount=said.discount,
        start=start,
        transitions=transitions,
        emissions=emissions,
        rewards=rewards,
        ends=resets[rule] | last[transitions.indices],
        seen_rewards=seen,
        name=problem_name(path),
    )


def problem_name(path: Path) -> str:
    """The name of a file without the endings of its format."""
    name = path.name
    for ending in (".gz", ".pomdpx", ".pomdp"):
        if name.lower().endswith(ending):
            name = name[: -len(ending)]
    return name


def _expect_all_sections(said: Parser) -> None:
    for kind, section in SECTIONS.items():
        if kind not in said.names:
            raise InputError(f"{said.path}: no {section}: line; expected one")
    for which in TABLES:
        if not said.tables or not len(said.tables[which]):
            raise InputError(f"{said.path}: no {which}: line; expected at least one")


def _probabilities(said: Parser, which: str) -> tuple[Rows, np.ndarray, int]:
    """(the table, the rule that each entry is from, how many rows were divided by their sum)."""
    rules = said.tables[which]
    try:
        rows, rule = rules.rows()
    except InputError as e:
        raise InputError(f"{said.path}: {which}: {e}") from e
    rows, sums, divided = normalized(rows)
    wrong = np.flatnonzero(np.abs(sums - 1) > SLACK)
    if len(wrong):
        row = int(wrong[0])
        here = rule[rows.indptr[row] : rows.indptr[row + 1]]
        line = f":{rules.lines[int(here.max())]}" if len(here) else ""
        action, state = divmod(row, len(said.names["state"]))
        raise InputError(
            f"{said.path}{line}: {which}: probabilities of action {said.names['action'][action]}, "
            f"state {said.names['state'][state]} sum to {sums[row]:.9g}; expected 1"
        )
    return rows, rule, divided


def _rewards(said: Parser, transitions: Rows, emissions: Rows) -> tuple[np.ndarray, Rows | None]:
    """(reward of each transition, rewards of what is seen after it if they depend on it)."""
    rules = said.tables["R"]
    row = transitions.of_entries()
    action, state = np.divmod(row, transitions.width)
    reached = transitions.indices.astype(np.int64)
    if not (np.frombuffer(rules.places[3], np.int32) != ANY).any():
        anything = np.zeros(len(row), np.int64)
        return said.signed(rules.at([action, state, reached, anything])), None
    try:
        pair, at = each_sight(emissions, action * transitions.width + reached)
    except InputError as e:
        raise InputError(f"{said.path}: R: {e}") from e
    sight = emissions.indices[at].astype(np.int64)
    value = said.signed(rules.at([action[pair], state[pair], reached[pair], sight]))
    return over_sights(pair, sight, value, emissions.data[at], (len(row), emissions.width))
