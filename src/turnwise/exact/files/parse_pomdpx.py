"""The variables and tables of a `.pomdpx` file, with names checked and nothing multiplied out.

A file of APPL's XML format declares variables (state variables under two names, before and after the action)
and then has a table for each: P(variable | parents) in `<CondProb>`, a reward of parents in `<Func>`. An
entry of a table has an `<Instance>`, one word per parent and one for the variable itself: a value, `*` (all
values alike), or `-` (all values, each with its own number).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from turnwise.exact.files.elements import DocumentError, Element, read_elements
from turnwise.exact.files.parse_pomdp import MOST_NAMES
from turnwise.exact.files.rules import ANY, SLACK, Rules
from turnwise.exact.files.words import parse_number, quoted
from turnwise.run.errors import InputError


@dataclass(frozen=True)
class Factor:
    """The table of one variable given its parents, or of a reward given its parents."""

    variable: str
    parents: list[str]
    rules: Rules
    """coordinates: the parents, then the variable (of a reward only the parents)"""
    place: str
    """section and variable, for messages"""
    line: int
    """line where the table begins"""


@dataclass(frozen=True)
class Document:
    """The content of a file. All variables go by their names."""

    discount: float
    values: dict[str, tuple[str, ...]]
    """the values of each variable; a state variable stands under both its names"""
    previous: list[str]
    """state variables before the action"""
    current: list[str]
    """the same variables after the action, in the same order"""
    seen: list[str]
    """those of `current` that are fully observed"""
    observed: list[str]
    """observation variables"""
    action: str
    """the action variable"""
    start: list[Factor]
    transitions: list[Factor]
    sensors: list[Factor]
    rewards: list[Factor]


def parse(path: Path) -> Document:
    """Read a file. Whatever is wrong with it is a DocumentError."""
    root = read_elements(path)
    if root.tag != "pomdpx":
        raise DocumentError(f"<{root.tag[:40]}>; expected <pomdpx>", root.line)
    return _document(root)


def _document(root: Element) -> Document:
    variables = root.child("Variable")
    values: dict[str, tuple[str, ...]] = {}
    previous, current, seen = [], [], []

    def name(element: Element, attribute: str, given: tuple[str, ...]) -> str:
        word = element.attributes.get(attribute, "").strip()
        if not word or word in values:
            raise DocumentError(
                f"<{element.tag}>: {attribute}={quoted(word)}; expected a name of its own", element.line
            )
        values[word] = given
        return word

    for element in variables.all("StateVar"):
        own = _values(element, "s")
        previous.append(name(element, "vnamePrev", own))
        current.append(name(element, "vnameCurr", own))
        if element.attributes.get("fullyObs", "").strip().lower() in ("true", "1"):
            seen.append(current[-1])
    observed = [name(e, "vname", _values(e, "o")) for e in variables.all("ObsVar")]
    actions = [name(e, "vname", _values(e, "a")) for e in variables.all("ActionVar")]
    if not previous or len(actions) != 1 or not observed + seen:
        raise DocumentError(
            f"<Variable>: {len(previous)} states, {len(actions)} actions, {len(observed + seen)} observed; "
            "expected one <ActionVar>, and at least one <StateVar> and one <ObsVar> or fullyObs",
            variables.line,
        )
    before, after = {actions[0], *previous}, {actions[0], *current}
    return Document(
        discount=_discount(root),
        values=values,
        previous=previous,
        current=current,
        seen=seen,
        observed=observed,
        action=actions[0],
        start=_factors(root, "InitialStateBelief", previous, set(previous), values),
        transitions=_factors(root, "StateTransitionFunction", current, before | after, values),
        sensors=_factors(root, "ObsFunction", observed, after | set(observed), values),
        rewards=_rewards(root, before | after | set(observed), values),
    )


def _discount(root: Element) -> float:
    element = root.child("Discount")
    words = element.words()
    value = parse_number(words[0]) if len(words) == 1 else None
    if value is None or not 0 <= value <= 1:
        raise DocumentError(
            f"<Discount>: {quoted(' '.join(words))}; expected a number from 0 to 1", element.line
        )
    return value


def _values(element: Element, letter: str) -> tuple[str, ...]:
    """The names of a variable's values; `<NumValues>` makes names of a letter and a number: s0, s1, ..."""
    listed = element.find("ValueEnum")
    if listed is None:
        words = element.child("NumValues").words()
        count = parse_number(words[0]) if len(words) == 1 and words[0].isdigit() else None
        if count is None or not 1 <= count <= MOST_NAMES:
            raise DocumentError(
                f"<NumValues>: {quoted(' '.join(words))}; expected a count from 1 to {MOST_NAMES}",
                element.line,
            )
        return tuple(f"{letter}{i}" for i in range(int(count)))
    names = tuple(listed.words())
    if not names or len(set(names)) < len(names) or {"*", "-"} & set(names):
        raise DocumentError(f"<ValueEnum>: {quoted(' '.join(names))}; expected different names", element.line)
    return names


def _factors(
    root: Element,
    section: str,
    variables: list[str],
    allowed: set[str],
    values: dict[str, tuple[str, ...]],
) -> list[Factor]:
    """The tables of a section: one for each of `variables`."""
    found: dict[str, Factor] = {}
    element = root.find(section)
    if element is None and variables:
        raise DocumentError(f"<pomdpx>: no <{section}>; expected one", root.line)
    for table in element.all("CondProb") if element is not None else []:
        variable = " ".join(table.child("Var").words())
        if variable not in variables or variable in found:
            missing = " ".join(v for v in variables if v not in found) or "no more"
            raise DocumentError(
                f"<{section}>: a table of {quoted(variable)}; expected one of {missing}", table.line
            )
        found[variable] = _factor(table, section, variable, allowed - {variable}, values)
    missing = [v for v in variables if v not in found]
    if missing:
        raise DocumentError(f"<{section}>: no table of {missing[0]}; expected one", element and element.line)
    return list(found.values())


def _rewards(root: Element, allowed: set[str], values: dict[str, tuple[str, ...]]) -> list[Factor]:
    element = root.child("RewardFunction")
    found = []
    for table in element.all("Func"):
        variable = " ".join(table.child("Var").words())
        if variable in values:
            raise DocumentError(f"<RewardFunction>: {quoted(variable)}; expected a <RewardVar>", table.line)
        found.append(_factor(table, "RewardFunction", variable, allowed, values))
    if not found:
        raise DocumentError("<RewardFunction>: no <Func>; expected one", element.line)
    return found


def _factor(
    table: Element, section: str, variable: str, allowed: set[str], values: dict[str, tuple[str, ...]]
) -> Factor:
    parents = table.child("Parent").words()
    parents = [] if parents == ["null"] else parents
    place = f"<{section}>: {variable}"
    for parent in parents:
        if parent not in allowed or parents.count(parent) > 1:
            known = " ".join(sorted(allowed))
            raise DocumentError(
                f"{place}: depends on {quoted(parent)}; expected different ones of {known}", table.line
            )
    parameter = table.child("Parameter")
    if parameter.attributes.get("type", "TBL") != "TBL":
        kind = quoted(parameter.attributes["type"])
        raise DocumentError(f"{place}: a table of type {kind}; expected TBL", parameter.line)
    reward = section == "RewardFunction"
    axes = [values[p] for p in parents] + ([] if reward else [values[variable]])
    if not axes:
        raise DocumentError(f"{place}: depends on nothing; expected a parent", table.line)
    rules = Rules([len(axis) for axis in axes])
    if math.prod(rules.sizes) >= 2**62:
        raise DocumentError(
            f"{place}: {math.prod(rules.sizes):,} combinations; expected fewer than {2**62:,}", table.line
        )
    indexes = [{word: i for i, word in enumerate(axis)} for axis in axes]
    for entry in parameter.all("Entry"):
        instance = entry.child("Instance").words()
        if section == "InitialStateBelief" and not parents and instance == []:
            instance = ["-"]
        try:
            if len(instance) != len(axes):
                raise InputError(f"{len(instance)} words; expected {len(axes)}")
            numbers = entry.child("ValueTable" if reward else "ProbTable").words()
            _add_entry(rules, instance, numbers, indexes, entry.line, reward)
        except DocumentError:
            raise
        except InputError as e:
            raise DocumentError(f"{place}: entry {quoted(' '.join(instance))}: {e}", entry.line) from e
    return Factor(variable, parents, rules, place, table.line)


def _add_entry(
    rules: Rules,
    instance: list[str],
    words: list[str],
    indexes: list[dict[str, int]],
    line: int,
    reward: bool,
) -> None:
    """Add the rules of one entry. At `*` it holds for all values; at `-` there is a number for each.

    If several words are `-`, the numbers are an array over them, the last fastest.
    """
    place: list[int] = []
    for word, index in zip(instance, indexes, strict=True):
        if word not in index and word not in ("*", "-"):
            raise InputError(f"{quoted(word)}; expected one of {' '.join(list(index)[:5])}, * or -")
        place.append(index.get(word, ANY))
    listed = [i for i, word in enumerate(instance) if word == "-"]
    shape = [rules.sizes[i] for i in listed]
    if words == ["uniform"] and not reward:
        rules.add(place, 1 / rules.sizes[-1], line)
        return
    if words == ["identity"] and not reward:
        if len(shape) != 2 or shape[0] != shape[1]:
            raise InputError("identity; expected it for two - of one size")
        _add_listed(rules, place, listed, np.eye(shape[0]), line)
        return
    if len(words) != math.prod(shape):
        raise InputError(f"{len(words)} numbers; expected {math.prod(shape)}")
    numbers = [parse_number(word) for word in words]
    for word, value in zip(words, numbers, strict=True):
        if value is None or (not reward and not 0 <= value <= 1 + SLACK):
            raise InputError(f"{quoted(word)}; expected a {'number' if reward else 'probability'}")
    values = np.array(numbers, np.float64).reshape(shape)
    if listed:
        _add_listed(rules, place, listed, values, line)
    else:
        rules.add(place, float(values), line)


def _add_listed(rules: Rules, place: list[int], listed: list[int], values: np.ndarray, line: int) -> None:
    """Add the array `values` over the coordinates `listed`: a rule for zeros, one for each other value."""
    rules.add(place, 0.0, line)
    for at in np.argwhere(values).tolist():
        own = list(place)
        for i, j in zip(listed, at, strict=True):
            own[i] = j
        rules.add(own, float(values[tuple(at)]), line)
