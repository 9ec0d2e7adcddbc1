"""Who may import whom: the layers of the library, kept by walking all imports, those in functions too."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "turnwise"


@dataclass(frozen=True)
class Rule:
    """What files of a layer may import: layers of ours, libraries, and libraries only inside functions."""

    ours: frozenset[str]
    libraries: frozenset[str] | None = None
    """None: any"""
    lazily: frozenset[str] = frozenset()


def _rule(ours: str, libraries: str | None, lazily: str = "") -> Rule:
    libs = None if libraries is None else frozenset(libraries.split())
    return Rule(frozenset(ours.split()), libs, frozenset(lazily.split()))


BELOW_ALGORITHMS = "envs exact data models losses rollout run"
RULES = {
    "__init__.py": _rule(BELOW_ALGORITHMS + " algorithms evaluation recipes", ""),
    "envs/gymnasium/*": _rule("envs", "numpy gymnasium"),
    "envs/*": _rule("envs", "numpy"),
    "exact/compiled.py": _rule("exact envs", "numba"),
    "exact/*": _rule("exact envs", "numpy scipy"),
    "data/acts/*": _rule("data envs", "numpy scipy sklearn torch jaxtyping"),
    "data/*": _rule("data envs", "numpy torch jaxtyping", lazily="pyarrow datasets"),
    "losses/*": _rule("losses", "torch jaxtyping"),
    "models/lm/*": _rule(
        "models losses data",
        "numpy torch jaxtyping transformers tokenizers peft",
        lazily="numba huggingface_hub",
    ),
    "models/*": _rule("models losses data envs", "torch jaxtyping"),
    # A policy of acts may be a plan in a learnt model: what `exact` knows, it does.
    "rollout/acts/imitation/*": _rule("rollout models losses data envs", "numpy scipy torch safetensors"),
    "rollout/acts/*": _rule("rollout models losses data envs exact", "numpy torch jaxtyping safetensors"),
    "rollout/*": _rule("rollout models losses data envs", "numpy torch jaxtyping safetensors"),
    "algorithms/*": _rule(BELOW_ALGORITHMS + " evaluation", "numpy torch jaxtyping"),
    "evaluation/*": _rule(BELOW_ALGORITHMS + " evaluation", None),
    "run/*": _rule("run", None),
    "recipes/*": _rule(BELOW_ALGORITHMS + " algorithms evaluation recipes", None),
    "cli*": _rule(BELOW_ALGORITHMS + " algorithms evaluation recipes studio cli", None),
    "studio/*": _rule(BELOW_ALGORITHMS + " algorithms evaluation recipes studio", None),
}
"""the first pattern that fits a file (relative to src/turnwise) holds"""

ANYWHERE = (
    "turnwise.run.errors.",
    "turnwise.run.checks.",
    "turnwise.run.rehearsal.",
    "turnwise.run.progress.",
    "turnwise.run.files.",
)
"""errors that people read, checks of settings, rehearsals, the progress of long work, and how files are read
and written, stand in every layer but the mathematics"""


def imports(code: str, module: str) -> Iterator[tuple[int, str, bool]]:
    """(line, dotted name, whether inside a function) of each import in the code of `module`.

    `from turnwise.run import errors` counts as turnwise.run.errors; relative imports are resolved.
    """
    tree = ast.parse(code)
    inside = {
        child
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for child in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            package = module.split(".")[: -node.level] if node.level else []
            base = ".".join([*package, *([node.module] if node.module else [])])
            names = [f"{base}.{alias.name}" if base.startswith("turnwise") else base for alias in node.names]
        else:
            continue
        for name in dict.fromkeys(names):
            yield node.lineno, name, node in inside


def violations(file: str, code: str) -> list[str]:
    """What is wrong with the imports of `file` (its path relative to src/turnwise)."""
    rule = next((r for pattern, r in RULES.items() if fnmatch(file, pattern)), None)
    if rule is None:
        return [f"{file}: in no layer"]
    module = "turnwise." + file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    if file.endswith("__init__.py"):
        module += ".__init__"
    wrong = []
    for line, name, lazy in imports(code, module):
        top, *rest = name.split(".")
        if top == "turnwise":
            layer = rest[0] if rest else ""
            error = f"{name}.".startswith(ANYWHERE) and not file.startswith("losses/")
            fine = layer in rule.ours or error or layer == "__version__"
        else:
            fine = (
                top in sys.stdlib_module_names
                or rule.libraries is None
                or top in rule.libraries
                or (lazy and top in rule.lazily)
            )
        if not fine:
            wrong.append(f"{file}:{line}: imports {name}")
    return wrong


FILES = sorted(str(f.relative_to(SOURCE)) for f in SOURCE.rglob("*.py"))


def test_every_layer_keeps_to_its_rule() -> None:
    assert len(FILES) > 30
    found = [v for file in FILES for v in violations(file, (SOURCE / file).read_text(encoding="utf-8"))]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("file", "code"),
    [
        ("losses/a.py", "import numpy"),
        ("losses/a.py", "from turnwise.run.errors import InputError"),
        ("losses/a.py", "from turnwise.data.batch import Batch"),
        ("models/heads.py", "def f():\n    from transformers import AutoModel"),
        ("models/heads.py", "import turnwise.rollout.conversations"),
        ("data/tokens.py", "import transformers.utils"),
        ("data/logs.py", "import pyarrow"),
        ("data/logs.py", "from turnwise import models"),
        ("envs/a.py", "import torch"),
        ("exact/a.py", "from turnwise.data import tokens"),
        ("run/a.py", "from turnwise.data.tokens import Tokens"),
        ("run/a.py", "from .. import data"),
        ("rollout/a.py", "import transformers"),
        ("rollout/a.py", "from turnwise.evaluation.pages.report import write_report"),
        ("rollout/a.py", "from turnwise.run.training import TrainingRun"),
        ("algorithms/ilql.py", "from turnwise.algorithms import bc"),
        ("algorithms/ilql.py", "from .bc import Config"),
        ("algorithms/ilql.py", "from turnwise.cli import main"),
        ("evaluation/a.py", "from turnwise.algorithms.logs.bc import Config"),
        ("evaluation/a.py", "class A:\n    def f(self):\n        import turnwise.cli.train"),
        ("evaluation/a.py", "from turnwise.recipes.tasks import find_task"),
        ("recipes/a.py", "import turnwise.cli"),
        ("recipes/a.py", "from turnwise.studio import app"),
        ("studio/a.py", "import turnwise.cli"),
        ("helpers.py", "import os"),
    ],
)
def test_the_check_finds(file: str, code: str) -> None:
    assert len(violations(file, code)) == 1


@pytest.mark.parametrize(
    ("file", "code"),
    [
        ("models/lm/lanes/memory.py", "import transformers"),
        ("models/heads.py", "from turnwise.run.errors import InputError"),
        ("data/logs.py", "def f():\n    import pyarrow.parquet"),
        ("data/a/b.py", "from . import c"),
        ("data/__init__.py", "from . import c"),
        ("data/c.py", "from ..envs.dialogue import Message"),
        ("cli/train.py", "from turnwise.algorithms import bc"),
        ("cli.py", "from turnwise.algorithms import bc"),
        ("recipes/a.py", "from turnwise.algorithms import bc\nfrom turnwise.evaluation.pages import report"),
        ("run/a.py", "import torch, yaml\nfrom turnwise.run import errors"),
    ],
)
def test_the_check_allows(file: str, code: str) -> None:
    assert violations(file, code) == []
