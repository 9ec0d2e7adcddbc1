"""Reading `.pomdp` files, the text format of Anthony Cassandra's pomdp-solve, as they are really written.

Source: https://www.pomdp.org/code/pomdp-file-spec.html and the grammar of pomdp-solve (parser.y). Headers
come in any order before the first table, colons with or without spaces, line breaks anywhere. Of two lines
about the same place the later one holds, in T, O and R alike. An absent `discount:` is 1, an absent `start:`
uniform, an absent `values:` reward; `values: cost` changes the sign of R. Numbers may stand for names, also
for declared ones.

Beyond Cassandra's description:

- `T: a : s reset`: the episode ends, and the row is the start distribution (pomdp-solve, gym-pomdps).
- `goals: s ...`: entering one of these states ends the episode (gpt-rewards).
- A state that all actions leave where it is, with nothing to gain or lose, ends the episode when it is
  entered. This changes no policy's value, and environments terminate instead of idling for ever.
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
from turnwise.exact.files.parse_pomdp import SECTIONS, Parser
from turnwise.exact.files.rules import ANY, SLACK, idle_states, joined, normalized, rewards_by_transition
from turnwise.exact.files.words import TABLES
from turnwise.run.errors import InputError


def read_pomdp(path: str | Path) -> POMDP:
    """Read the problem in a `.pomdp` file, plain or gzip. Whatever is wrong with it is an InputError."""
    path = Path(path)
    parser = Parser(path)
    parser.read()
    _expect_all_sections(parser)
    start = parser.start()
    transitions, rule, divided_t = _probabilities(parser, "T")
    emissions, _, divided_o = _probabilities(parser, "O")
    divided = parser.start_divided + divided_t + divided_o
    if divided:
        warnings.warn(
            f"{path}: {divided} row{'s' if divided > 1 else ''} of probabilities did not sum to 1 and "
            f"{'were' if divided > 1 else 'was'} divided by the sum",
            UserWarning,
            stacklevel=2,
        )
    rewards, seen = _rewards(parser, transitions, emissions)
    resets = np.zeros(len(parser.tables["T"]), bool)
    resets[list(parser.tables["T"].resets)] = True
    last = idle_states(transitions, rewards, seen)
    last[parser.goal_states()] = True
    return POMDP(
        states=parser.names["state"],
        actions=parser.names["action"],
        observations=parser.names["observation"],
        discount=parser.discount,
        start=start,
        transitions=transitions,
        emissions=emissions,
        rewards=rewards,
        ends=resets[rule] | last[transitions.indices],
        seen_rewards=seen,
        name=problem_name(path),
    )


def problem_name(path: Path) -> str:
    """The name of a file without the endings of its format: `hallway` of `hallway.pomdp.gz`."""
    name = path.name
    for ending in (".gz", ".pomdpx", ".pomdp"):
        if name.lower().endswith(ending):
            name = name[: -len(ending)]
    return name


def _expect_all_sections(parser: Parser) -> None:
    for kind, section in SECTIONS.items():
        if kind not in parser.names:
            raise InputError(f"{parser.path}: no {section}: line; expected one")
    for which in TABLES:
        if not parser.tables or not len(parser.tables[which]):
            raise InputError(f"{parser.path}: no {which}: line; expected at least one")


def _probabilities(parser: Parser, which: str) -> tuple[Rows, np.ndarray, int]:
    """(the table, the rule that gave each entry, how many rows were divided by their sum)."""
    rules = parser.tables[which]
    try:
        rows, rule = rules.rows()
    except InputError as e:
        raise InputError(f"{parser.path}: {which}: {e}") from e
    rows, sums, divided = normalized(rows)
    wrong = np.flatnonzero(np.abs(sums - 1) > SLACK)
    if len(wrong):
        row = int(wrong[0])
        here = rule[rows.indptr[row] : rows.indptr[row + 1]]
        line = f":{rules.lines[int(here.max())]}" if len(here) else ""
        action, state = divmod(row, len(parser.names["state"]))
        raise InputError(
            f"{parser.path}{line}: {which}: probabilities of action {parser.names['action'][action]}, "
            f"state {parser.names['state'][state]} sum to {sums[row]:.9g}; expected 1"
        )
    return rows, rule, divided


def _rewards(parser: Parser, transitions: Rows, emissions: Rows) -> tuple[np.ndarray, Rows | None]:
    """(the reward of each transition, the rewards by observation if they depend on it)."""
    rules = parser.tables["R"]
    row = transitions.of_entries()
    action, state = np.divmod(row, transitions.width)
    reached = transitions.indices.astype(np.int64)
    if not (np.frombuffer(rules.places[3], np.int32) != ANY).any():  # no line of R names an observation
        anything = np.zeros(len(row), np.int64)
        return parser.signed(rules.at([action, state, reached, anything])), None
    try:
        pair, at = joined(emissions, action * transitions.width + reached)
    except InputError as e:
        raise InputError(f"{parser.path}: R: {e}") from e
    seen = emissions.indices[at].astype(np.int64)
    value = parser.signed(rules.at([action[pair], state[pair], reached[pair], seen]))
    return rewards_by_transition(pair, seen, value, emissions.data[at], (len(row), emissions.width))
