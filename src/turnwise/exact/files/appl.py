"""Policies in the format of APPL's solvers (`.policy`, XML): alpha vectors with their first actions.

The format has no word for what a plan goes on with, so a policy that is read acts by the best vector at each
belief. Dense and sparse vectors are read. Policies of problems in which part of the state is seen
(`numObsValue` above 1) hold for a part of the state each, and are refused.
"""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import quoteattr

import numpy as np

from turnwise.exact.alpha_policy import RANDOM, AlphaPolicy
from turnwise.exact.files.elements import DocumentError, Element, read_elements
from turnwise.run.files.whole import whole_file


def write_appl(policy: AlphaPolicy, path: Path, name: str) -> None:
    """Write the vectors with every digit. Plans that draw actions at random are left out."""
    named = policy.actions != RANDOM
    n, S = policy.alphas[named].shape
    with whole_file(path) as part, part.open("w", encoding="utf-8") as file:
        file.write('<?xml version="1.0" encoding="UTF-8"?>\n')
        file.write(f'<Policy version="0.1" type="value" model={quoteattr(name)}>\n')
        file.write(f'<AlphaVector vectorLength="{S}" numObsValue="1" numVectors="{n}">\n')
        for action, alpha in zip(policy.actions[named], policy.alphas[named], strict=True):
            values = " ".join(f"{x:.17g}" for x in alpha)
            file.write(f'<Vector action="{action}" obsValue="0">{values} </Vector>\n')
        file.write("</AlphaVector> </Policy>\n")


def read_appl(path: Path) -> AlphaPolicy:
    """Read a `.policy` file; whatever is wrong with it is an InputError with file and line."""
    try:
        return _policy(read_elements(path))
    except DocumentError as e:
        raise e.within(path) from e


def _policy(root: Element) -> AlphaPolicy:
    if root.tag != "Policy":
        raise DocumentError(f"<{root.tag}>; expected <Policy>, as APPL writes it", root.line)
    table = root.child("AlphaVector")
    S = _whole(table, "vectorLength")
    if _whole(table, "numObsValue") != 1:
        raise DocumentError(
            "numObsValue is above 1; expected vectors over the whole state (solve the problem as .pomdp)",
            table.line,
        )
    alphas, actions = [], []
    for vector in [x for x in table.content if isinstance(x, Element)]:
        if vector.tag not in ("Vector", "SparseVector"):
            raise DocumentError(f"<{vector.tag}>; expected <Vector> or <SparseVector>", vector.line)
        actions.append(_whole(vector, "action"))
        alphas.append(_sparse(vector, S) if vector.tag == "SparseVector" else _dense(vector, S))
    if not alphas:
        raise DocumentError("no vectors; expected at least one", table.line)
    return AlphaPolicy(np.array(alphas), np.array(actions), None)


def _whole(element: Element, name: str) -> int:
    """An attribute that is a whole number, 0 or more."""
    given = element.attributes.get(name, "")
    if not (given.isascii() and given.isdigit()):
        raise DocumentError(f"{name} is {given!r}; expected a whole number", element.line)
    return int(given)


def _dense(vector: Element, S: int) -> np.ndarray:
    values = _numbers(vector)
    if len(values) != S:
        raise DocumentError(f"{len(values)} numbers; expected {S}, one for each state", vector.line)
    return values


def _sparse(vector: Element, S: int) -> np.ndarray:
    alpha = np.zeros(S)
    for entry in vector.all("Entry"):
        values = _numbers(entry)
        if len(values) != 2 or not (0 <= values[0] < S and values[0] == int(values[0])):
            raise DocumentError(f"an entry; expected a state below {S} and its value", entry.line)
        alpha[int(values[0])] = values[1]
    return alpha


def _numbers(element: Element) -> np.ndarray:
    try:
        values = np.array([float(x) for x in element.words()])
    except ValueError as e:
        raise DocumentError(f"{e}; expected numbers", element.line) from e
    if not np.isfinite(values).all():
        raise DocumentError("a number that is not finite; expected finite numbers", element.line)
    return values
