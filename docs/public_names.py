"""Reference pages from signatures and docstrings: what `<!-- names of MODULE -->` on a page turns into.

Docstrings of this library are prose with `code` spans and indented formulas, no markup language. So they are
read here as what they are, and set as reStructuredText in which every character stands for itself.
"""

import ast
import dataclasses
import importlib
import inspect
import re
import textwrap
from types import ModuleType

from sphinx.pycode import ModuleAnalyzer


def reference(module_name: str) -> str:
    """The public names of a module, one entry each, as a block that MyST hands on to reStructuredText."""
    module = importlib.import_module(module_name)
    lines = prose(inspect.getdoc(module) or "")
    for name in public_names(module):
        lines += ["", *entry(module_name, name, getattr(module, name))]
    # Five backquotes: docstrings may hold three.
    return "\n".join(["`````{eval-rst}", *lines, "`````"])


def public_names(module: ModuleType) -> list[str]:
    """`__all__` in its order, else what the module itself defines, in the order of its source."""
    if hasattr(module, "__all__"):
        return [name for name in module.__all__ if not name.startswith("_")]
    own = [
        (inspect.getsourcelines(value)[1], name)
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
        if inspect.isclass(value) or inspect.isfunction(value)
    ]
    return [name for _, name in sorted(own)]


def entry(module_name: str, name: str, value: object) -> list[str]:
    """One public name: a function, a class with its fields and methods, or a plain value."""
    if inspect.isclass(value):
        body = [*prose(inspect.getdoc(value) or ""), "", *members(value)]
        kind, call = "class", class_signature(value)
    elif inspect.isfunction(value):
        body, kind, call = prose(inspect.getdoc(value) or ""), "function", signature(value)
    else:
        body, kind, call = [f"``{value!r}``"], "data", ""
    return [f".. py:{kind}:: {module_name}.{name}{call}", "", *indented(body)]


def members(value: type) -> list[str]:
    """Fields with their defaults and what they mean, then public methods and properties."""
    lines: list[str] = []
    fields = {f.name: f for f in dataclasses.fields(value)} if dataclasses.is_dataclass(value) else {}
    for name, f in fields.items():
        if not name.startswith("_"):
            lines += [f".. py:attribute:: {name}", f"   :type: {type_of(f.type)}"]
            lines += [f"   :value: {default_of(f)}"] if default_of(f) else []
            lines += ["", *indented(prose(field_doc(value, name))), ""]
    for name, member in vars(value).items():
        if name.startswith("_") or name in fields or not inspect.getdoc(member):
            continue
        member = member.__func__ if isinstance(member, classmethod | staticmethod) else member
        if inspect.isfunction(member):
            lines += [f".. py:method:: {name}{signature(member)}", ""]
        elif isinstance(member, property):
            lines += [f".. py:property:: {name}", ""]
        else:
            continue
        lines += [*indented(prose(inspect.getdoc(member) or "")), ""]
    return lines


def signature(function) -> str:
    """Arguments and result as the source has them: shapes stand in annotations that are strings to Python."""
    source = textwrap.dedent(inspect.getsource(function))
    node = next(n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.FunctionDef))
    arguments = node.args
    first = [*arguments.posonlyargs, *arguments.args][:1]
    if first and first[0].arg in ("self", "cls"):
        (arguments.posonlyargs or arguments.args).pop(0)
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return f"({ast.unparse(arguments)}){returns}"


def class_signature(value: type) -> str:
    """How it is made; the fields of a dataclass follow one by one, so here they are only named."""
    if dataclasses.is_dataclass(value):
        names = [f.name for f in dataclasses.fields(value) if f.init]
        return f"({', '.join(names)})"
    own = vars(value).get("__init__")
    return signature(own).removesuffix(" -> None") if inspect.isfunction(own) else ""


def field_doc(value: type, name: str) -> str:
    """The string under a field in the source of the class, or of the first base that has one."""
    for base in value.__mro__:
        if base.__module__ not in ("builtins", "typing"):
            docs = ModuleAnalyzer.for_module(base.__module__).find_attr_docs()
            if found := docs.get((base.__qualname__, name)):
                return " ".join(found).strip()
    return ""


def type_of(annotation) -> str:
    """A type as the source has it."""
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


def default_of(f: dataclasses.Field) -> str:
    """The default as source, empty where there is none."""
    if f.default is not dataclasses.MISSING:
        return repr(f.default)
    return f"{f.default_factory.__name__}()" if f.default_factory is not dataclasses.MISSING else ""


def prose(doc: str) -> list[str]:
    """A docstring as reStructuredText: paragraphs and lists as they are, indented lines as literal blocks."""
    lines: list[str] = []
    before = "text"
    for line in doc.splitlines():
        if not line.strip():
            lines.append("")
            continue
        kind = "item" if line.startswith("- ") else "text"
        if line.startswith("  "):
            kind = "item" if before == "item" else "literal"
        if kind != before:
            lines += ["", "::", ""] if kind == "literal" else [""]
        before = kind
        lines.append("    " + line if kind == "literal" else plain(line))
    return lines


def plain(line: str) -> str:
    """Text in which only code between backquotes is marked."""
    parts = re.split(r"(`[^`]+`)", line)
    return "".join(f"`{p}`" if p.startswith("`") else re.sub(r"([\\*_|`])", r"\\\1", p) for p in parts)


def indented(lines: list[str]) -> list[str]:
    """The same lines inside a directive."""
    return ["   " + line if line else "" for line in lines]
