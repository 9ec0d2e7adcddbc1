"""Help of flags: the docstring under each field, as one paragraph."""

from __future__ import annotations

import ast
import inspect
import textwrap
import typing
from dataclasses import fields, is_dataclass
from types import MappingProxyType
from typing import Any


def add_help(kind: type[Any]) -> None:
    """Hand the parser of flags what each field of a dataclass means, nested ones included.

    The parser reads docstrings itself, but keeps their line breaks in the middle of sentences.
    """
    docs = _field_docs(kind)
    hints = typing.get_type_hints(kind)
    for field in fields(kind):
        if is_dataclass(hints[field.name]):
            add_help(hints[field.name])
        elif field.name in docs:
            field.metadata = MappingProxyType({**field.metadata, "help": docs[field.name]})  # type: ignore[misc]


def _field_docs(kind: type[Any]) -> dict[str, str]:
    """Docstrings of fields by their names; empty for a class that was made without source."""
    try:
        source = textwrap.dedent(inspect.getsource(kind))
    except (OSError, TypeError):
        return {}
    found: dict[str, str] = {}
    body = ast.parse(source).body[0]
    assert isinstance(body, ast.ClassDef)
    for field, doc in zip(body.body, body.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            value = doc.value if isinstance(doc, ast.Expr) else None
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                found[field.target.id] = " ".join(value.value.split())
    return found
