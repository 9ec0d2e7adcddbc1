"""Scripts of `experiments/` and `benchmarks/` as modules: they are files of no package."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def load_script(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], ModuleType]:
    """Import a script, as `python FILE` would find it: with its folder on the path."""
    known = set(sys.modules)

    def load(file: Path) -> ModuleType:
        monkeypatch.syspath_prepend(str(file.parent))
        spec = importlib.util.spec_from_file_location(f"{file.parent.name}_{file.stem}", file)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, module)  # dataclasses look their module up there
        spec.loader.exec_module(module)
        return module

    yield load
    # Helpers such as `common` were imported by name: another test may mean another module by it.
    for name in set(sys.modules) - known:
        where = getattr(sys.modules[name], "__file__", None) or ""
        if Path(where).parent in (ROOT / "experiments", ROOT / "benchmarks"):
            del sys.modules[name]
