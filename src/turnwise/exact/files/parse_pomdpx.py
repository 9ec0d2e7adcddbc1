"""The variables and tables of a `.pomdpx` file."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from turnwise.exact.files.parse import MOST_NAMES
from turnwise.exact.files.rules import ANY, SLACK, Rules
from turnwise.exact.files.words import number, open_bytes, shown
from turnwise.run.errors import InputError


@dataclass(frozen=True)
class Factor:
    """A table of one variable given others, or of a reward given others."""

    variable: str
    parents: list[str]
    rules: Rules
    """coordinates: the parents, then the variable (rewards: only the parents)"""
    place: str
    """for messages"""


@dataclass(frozen=True)
class Document:
    """A file, with names checked and nothing multiplied out."""

    discount: float
    values: dict[str, tuple[str, ...]]
    """of each variable; a state variable stands under both its names"""
    previous: list[str]
    """state variables before the action"""
    current: list[str]
    """the same after it"""
    seen: list[str]
    """those of `current` that are fully observed"""
    observed: list[str]
    action: str
    start: list[Factor]
    transitions: list[Factor]
    sensors: list[Factor]
    rewards: list[Factor]


def parse(path: Path) -> Document:
    """Read the XML; whatever is wrong with it is an InputError."""
    try:
        with open_bytes(path) as file:
            root = ET.fromstring(file.read())
    except ET.ParseError as e:
        raise InputError(f"{path}:{e.position[0]}: no XML ({e}); expected a .pomdpx file") from e
    except (OSError, EOFError, zlib.error) as e:
        why = getattr(e, "strerror", None) or str(e)
        raise InputError(f"{path}: cannot be read ({why}); expected a .pomdpx file, plain or gzip") from e
    except (LookupError, ValueError) as e:
        raise InputError(f"{path}: in an encoding that cannot be read ({e})") from e
    if root.tag != "pomdpx":
        raise InputError(f"{path}: <{root.tag[:40]}>; expected <pomdpx>")
    try:
        return _document(root)
    except InputError as e:
        raise InputError(f"{path}: {e}") from e


def _document(root: ET.Element) -> Document:
    variables = _child(root, "Variable", "pomdpx")
    values: dict[str, tuple[str, ...]] = {}
    previous, current, seen = [], [], []

    def name(element: ET.Element, attribute: str, given: tuple[str, ...]) -> str:
        word = element.get(attribute, "").strip()
        if not word or word in values:
            raise InputError(f"<{element.tag}>: {attribute}={shown(word)}; expected a name of its own")
        values[word] = given
        return word

    for element in variables.iter("StateVar"):
        own = _values(element, "s")
        previous.append(name(element, "vnamePrev", own))
        current.append(name(element, "vnameCurr", own))
        if element.get("fullyObs", "").strip().lower() in ("true", "1"):
            seen.append(current[-1])
    observed = [name(e, "vname", _values(e, "o")) for e in variables.iter("ObsVar")]
    actions = [name(e, "vname", _values(e, "a")) for e in variables.iter("ActionVar")]
    if not previous or len(actions) != 1 or not observed + seen:
        raise InputError(
            f"<Variable>: {len(previous)} states, {len(actions)} actions, {len(observed + seen)} observed; "
            "expected one <ActionVar>, and at least one <StateVar> and one <ObsVar> or fullyObs"
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


def _child(element: ET.Element, tag: str, place: str) -> ET.Element:
    found = element.find(tag)
    if found is None:
        raise InputError(f"<{place}>: no <{tag}>; expected one")
    return found


def _words(element: ET.Element) -> list[str]:
    return "".join(element.itertext()).split()


def _discount(root: ET.Element) -> float:
    words = _words(_child(root, "Discount", "pomdpx"))
    value = number(words[0]) if len(words) == 1 else None
    if value is None or not 0 <= value <= 1:
        raise InputError(f"<Discount>: {shown(' '.join(words))}; expected a number from 0 to 1")
    return value


def _values(element: ET.Element, letter: str) -> tuple[str, ...]:
    """Names of a variable's values; of `<NumValues>` they are a letter and a number."""
    listed = element.find("ValueEnum")
    if listed is None:
        words = _words(_child(element, "NumValues", element.tag))
        count = number(words[0]) if len(words) == 1 and words[0].isdigit() else None
        if count is None or not 1 <= count <= MOST_NAMES:
            raise InputError(
                f"<NumValues>: {shown(' '.join(words))}; expected a count from 1 to {MOST_NAMES}"
            )
        return tuple(f"{letter}{i}" for i in range(int(count)))
    names = tuple(_words(listed))
    if not names or len(set(names)) < len(names) or {"*", "-"} & set(names):
        raise InputError(f"<ValueEnum>: {shown(' '.join(names))}; expected different names")
    return names


def _factors(
    root: ET.Element,
    section: str,
    variables: list[str],
    allowed: set[str],
    values: dict[str, tuple[str, ...]],
) -> list[Factor]:
    """The tables of a section: one for each of `variables`."""
    found: dict[str, Factor] = {}
    element = root.find(section)
    if element is None and variables:
        raise InputError(f"<pomdpx>: no <{section}>; expected one")
    for table in element.findall("CondProb") if element is not None else []:
        variable = " ".join(_words(_child(table, "Var", "CondProb")))
        if variable not in variables or variable in found:
            missing = " ".join(v for v in variables if v not in found) or "no more"
            raise InputError(f"<{section}>: a table of {shown(variable)}; expected one of {missing}")
        found[variable] = _factor(table, section, variable, allowed - {variable}, values)
    missing = [v for v in variables if v not in found]
    if missing:
        raise InputError(f"<{section}>: no table of {missing[0]}; expected one")
    return list(found.values())


def _rewards(root: ET.Element, allowed: set[str], values: dict[str, tuple[str, ...]]) -> list[Factor]:
    element = _child(root, "RewardFunction", "pomdpx")
    found = []
    for table in element.findall("Func"):
        variable = " ".join(_words(_child(table, "Var", "Func")))
        if variable in values:
            raise InputError(f"<RewardFunction>: {shown(variable)}; expected a <RewardVar>")
        found.append(_factor(table, "RewardFunction", variable, allowed, values))
    if not found:
        raise InputError("<RewardFunction>: no <Func>; expected one")
    return found


def _factor(
    table: ET.Element, section: str, variable: str, allowed: set[str], values: dict[str, tuple[str, ...]]
) -> Factor:
    parents = _words(_child(table, "Parent", section))
    parents = [] if parents == ["null"] else parents
    place = f"<{section}>: {variable}"
    for parent in parents:
        if parent not in allowed or parents.count(parent) > 1:
            known = " ".join(sorted(allowed))
            raise InputError(f"{place}: depends on {shown(parent)}; expected different ones of {known}")
    parameter = _child(table, "Parameter", section)
    if parameter.get("type", "TBL") != "TBL":
        raise InputError(f"{place}: a table of type {shown(parameter.get('type', ''))}; expected TBL")
    reward = section == "RewardFunction"
    axes = [values[p] for p in parents] + ([] if reward else [values[variable]])
    if not axes:
        raise InputError(f"{place}: depends on nothing; expected a parent")
    rules = Rules([len(axis) for axis in axes])
    if math.prod(rules.sizes) >= 2**62:
        raise InputError(f"{place}: too many combinations to be read")
    indexes = [{word: i for i, word in enumerate(axis)} for axis in axes]
    for entry in parameter.findall("Entry"):
        instance = _words(_child(entry, "Instance", "Entry"))
        tag = "ValueTable" if reward else "ProbTable"
        where = f"{place}: entry {shown(' '.join(instance))}"
        if section == "InitialStateBelief" and not parents and instance == []:
            instance = ["-"]
        if len(instance) != len(axes):
            raise InputError(f"{where}: {len(instance)} words; expected {len(axes)}")
        _entry(rules, instance, _words(_child(entry, tag, "Entry")), indexes, where, reward)
    return Factor(variable, parents, rules, place)


def _entry(
    rules: Rules,
    instance: list[str],
    words: list[str],
    indexes: list[dict[str, int]],
    where: str,
    reward: bool,
) -> None:
    """One entry: `*` holds for all values, at `-` the table has a number for each, the last fastest."""
    place: list[int] = []
    for word, index in zip(instance, indexes, strict=True):
        if word not in index and word not in ("*", "-"):
            raise InputError(f"{where}: {shown(word)}; expected one of {' '.join(list(index)[:5])}, * or -")
        place.append(index.get(word, ANY))
    listed = [i for i, word in enumerate(instance) if word == "-"]
    shape = [rules.sizes[i] for i in listed]
    if words == ["uniform"] and not reward:
        rules.add(place, 1 / rules.sizes[-1], 0)
        return
    if words == ["identity"] and not reward:
        if len(shape) != 2 or shape[0] != shape[1]:
            raise InputError(f"{where}: identity; expected it for two - of one size")
        _listed(rules, place, listed, [(i, i) for i in range(shape[0])], [1.0] * shape[0])
        return
    if len(words) != math.prod(shape):
        raise InputError(f"{where}: {len(words)} numbers; expected {math.prod(shape)}")
    numbers = [number(word) for word in words]
    for word, value in zip(words, numbers, strict=True):
        if value is None or (not reward and not 0 <= value <= 1 + SLACK):
            raise InputError(f"{where}: {shown(word)}; expected a {'number' if reward else 'probability'}")
    values = np.array(numbers, np.float64).reshape(shape)
    if not listed:
        rules.add(place, float(values), 0)
        return
    nonzero = np.argwhere(values)
    _listed(rules, place, listed, [tuple(at) for at in nonzero.tolist()], values[values != 0].tolist())


def _listed(
    rules: Rules, place: list[int], listed: list[int], at: list[tuple[int, ...]], values: list[float]
) -> None:
    """A rule for zeros at the places listed, one for each other value."""
    rules.add(place, 0.0, 0)
    for where, value in zip(at, values, strict=True):
        own = list(place)
        for i, j in zip(listed, where, strict=True):
            own[i] = j
        rules.add(own, value, 0)
