"""The catalogue against the algorithms that it lists: one row says what is known, and nothing else does."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
import typing
from pathlib import Path

import pytest

import turnwise
from turnwise.recipes.catalogue import ALGORITHMS, FAMILIES, Algorithm, algorithm_of
from turnwise.recipes.settings import demo, measure, solve, train
from turnwise.run.errors import SettingError
from turnwise.run.settings import AdamW

ROWS = list(ALGORITHMS.values())
NAMES = list(ALGORITHMS)
PAGES = {"reward": "reward-models", "pomdp": "learnt-pomdp"}
"""pages in docs/ whose name is not the algorithm's"""
EVALUATIONS = {"acts.fqe"}
"""algorithms that say what a policy is worth, and give none: no verb trains them"""
SOURCE = Path(turnwise.__file__).parent


@pytest.mark.parametrize("row", ROWS, ids=NAMES)
def test_a_row_has_its_file_its_name_and_its_page(row: Algorithm) -> None:
    assert getattr(turnwise, row.export) is row.config and row.export in turnwise.__all__
    assert algorithm_of(row.config()) is row and row.family in FAMILIES
    assert callable(row.module.train)
    if row.family not in ("plans", "codebooks"):  # neither has a gradient
        assert callable(row.module.loss) and callable(row.module.update)
    pages = (SOURCE.parents[1] / "docs").rglob(f"{PAGES.get(row.name, row.name)}.md")
    assert len(list(pages)) == 1


def test_every_algorithm_has_a_row() -> None:
    files = {
        ".".join(f.relative_to(SOURCE / "algorithms").with_suffix("").parts)
        for f in (SOURCE / "algorithms").rglob("*.py")
        if f.name != "__init__.py" and "class Config" in f.read_text(encoding="utf-8")
    }
    assert files - EVALUATIONS == {row.file for row in ROWS} and files > EVALUATIONS


@pytest.mark.parametrize("row", ROWS, ids=NAMES)
def test_the_light_config_is_the_config(row: Algorithm) -> None:
    """The same fields in the same order, types and defaults; the same help, which is read from the source."""
    whole, light = row.config, row.light_config
    fields = [[(f.name, f.type, f.default) for f in dataclasses.fields(x)] for x in (whole, light)]
    assert fields[0] == fields[1]
    assert vars(whole()) == vars(light()) and whole.__doc__ == light.__doc__


def test_light_configs_import_no_torch() -> None:
    code = (
        "import sys\nfrom turnwise.recipes.catalogue import ALGORITHMS\n"
        "[row.light_config() for row in ALGORITHMS.values()]\n"
        "print([m for m in ('torch', 'transformers', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def settings() -> list[type]:
    """Every class of settings that a person may fill with numbers."""
    modules = (train, measure, solve, demo)
    found = [x for m in modules for x in vars(m).values() if getattr(x, "__module__", "") == m.__name__]
    found = [x for x in found if isinstance(x, type) and dataclasses.is_dataclass(x)]
    return [*found, *(row.config for row in ROWS)]


@pytest.mark.parametrize("kind", settings(), ids=lambda k: f"{k.__module__}.{k.__name__}")
def test_no_setting_takes_what_is_no_number(kind: type) -> None:
    """nan is refused in each field that holds numbers, by its name."""
    needed = {"out": Path("x")} if kind is train.RunSettings else {}
    hints = typing.get_type_hints(kind)
    for name in (f.name for f in dataclasses.fields(kind)):
        options = {hints[name], *typing.get_args(hints[name])}
        if float in options:
            value: object = (math.nan,) if typing.get_origin(hints[name]) is tuple else math.nan
            with pytest.raises(SettingError, match=f"^{name} is nan; expected "):
                kind(**needed, **{name: value})


def test_errors_speak_python_and_flags() -> None:
    """One check, two doors."""
    with pytest.raises(SettingError) as caught:
        turnwise.ILQL(tau=7.0)
    assert str(caught.value) == "tau is 7.0; expected a number between 0 and 1"
    assert caught.value.as_flag() == "--tau 7.0: expected a number between 0 and 1"
    with pytest.raises(SettingError, match=r"^lr is -1\.0; expected a number above 0$"):
        turnwise.BC(optimizer=AdamW(lr=-1.0))


def test_what_is_no_config_is_refused() -> None:
    with pytest.raises(TypeError, match=r"3 is not the settings of an algorithm; expected one of"):
        algorithm_of(3)
