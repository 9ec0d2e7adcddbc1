"""What a release may not break: the public names, their parameters and fields, and the flags of the verbs.

`public_names.json` holds them as they are. More of them is no break; one that is gone, that has another place
among positional parameters, or another default is. A change that is meant is written there anew,

    python tests/packages/test_public_names.py

and said in CHANGELOG.md, under "Changed", as what to write instead.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
from pathlib import Path
from typing import Any

import turnwise as tw

FILE = Path(__file__).with_name("public_names.json")
NONE = "-"
"""the default of a parameter that must be given"""


def described(value: Any) -> dict[str, Any]:
    """Parameters of a function, or fields and methods of a class, with kinds and defaults, in order."""
    if not inspect.isclass(value):
        return {"function": parameters(value)}
    methods = {
        name: parameters(member)
        for name, member in inspect.getmembers(value, callable)
        if not name.startswith("_") and name in vars(value)
    }
    found: dict[str, Any] = {"methods": methods, "properties": sorted(properties(value))}
    if dataclasses.is_dataclass(value) or "__init__" in vars(value):
        found["made of"] = parameters(value)
    return found


def properties(value: type) -> list[str]:
    return [n for n, x in vars(value).items() if isinstance(x, property) and not n.startswith("_")]


def parameters(value: Any) -> dict[str, str]:
    """`name: "kind default"`, in their order."""
    try:
        signature = inspect.signature(value)
    except ValueError:
        return {}
    return {
        p.name: f"{'keyword' if p.kind is p.KEYWORD_ONLY else p.kind.description.split()[0]} {default(p)}"
        for p in signature.parameters.values()
        if p.name not in ("self", "cls") and not p.name.startswith("_")
    }


def default(p: inspect.Parameter) -> str:
    if p.default is p.empty:
        return NONE
    # A default that is made when it is needed has no text of its own that would be the same tomorrow.
    return repr(p.default) if isinstance(p.default, str | int | float | tuple | type(None)) else "made"


def everything() -> dict[str, Any]:
    return {name: described(getattr(tw, name)) for name in sorted(tw.__all__)}


def breaks(before: Any, now: Any, place: str = "tw") -> list[str]:
    """What somebody's program would miss, one sentence each."""
    if isinstance(before, list):
        return [f"{place}: {x} is gone" for x in before if x not in now]
    if not isinstance(before, dict):
        return [] if before == now else [f"{place} was {before!r} and is {now!r}"]
    found = [f"{place}.{name} is gone" for name in before if name not in now]
    for name in before:
        if name in now:
            found += breaks(before[name], now[name], f"{place}.{name}")
    if all(isinstance(x, str) for x in before.values()):  # parameters
        ordered = [n for n, x in before.items() if not x.startswith("keyword")]
        if [n for n in now if n in ordered] != [n for n in ordered if n in now]:
            found.append(f"{place}: the order of parameters is another one")
        places = [n for n, x in now.items() if not x.startswith("keyword")]
        if ordered and places[: len(ordered)] != ordered and set(ordered) <= set(places):
            found.append(f"{place}: a new parameter stands before older ones")
        found += [
            f"{place}.{n} is new and must be given"
            for n, x in now.items()
            if n not in before and x.split(" ", 1)[1] == NONE
        ]
    return found


def test_nothing_public_is_broken() -> None:
    found = breaks(json.loads(FILE.read_text()), everything())
    assert not found, "\n".join([*found, f"if this is meant: python {Path(__file__).name}, and CHANGELOG.md"])


def test_what_is_recorded_is_complete() -> None:
    """A name that is not written there is kept by nobody."""
    recorded = json.loads(FILE.read_text())
    assert sorted(recorded) == sorted(tw.__all__)


def test_what_breaks_is_seen() -> None:
    """A function with a parameter gone, moved, renamed, with another default; and ones that break nobody."""

    def was(a, b=1, *, c=None): ...
    def more(a, b=1, d=2, *, c=None, e=3): ...
    def gone(a, *, c=None): ...
    def moved(b, a=1, *, c=None): ...
    def other(a, b=2, *, c=None): ...
    def asks(a, b=1, *, c=None, e): ...
    def before(z, a, b=1, *, c=None): ...

    def against(now: Any) -> list[str]:
        return breaks(described(was), described(now), "f")

    assert against(was) == against(more) == []
    assert against(gone) == ["f.function.b is gone"]
    assert "f.function: the order of parameters is another one" in against(moved)
    assert against(other) == ["f.function.b was 'positional 1' and is 'positional 2'"]
    assert against(asks) == ["f.function.e is new and must be given"]
    assert "f.function: a new parameter stands before older ones" in against(before)


if __name__ == "__main__":
    FILE.write_text(json.dumps(everything(), indent=1) + "\n")
