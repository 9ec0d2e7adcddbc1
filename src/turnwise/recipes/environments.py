"""Which environment is meant: one of ours by name, a file, an id of Gymnasium, or an object."""

from __future__ import annotations

import copy
import functools
import shlex
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gymnasium
from gymnasium.vector import VectorEnv

from turnwise.envs.dialogue import task_words
from turnwise.envs.gymnasium.lanes import (
    GymnasiumLanes,
    environment_id,
    expect_arguments,
    expect_one_worker,
    lanes_by_id,
    lanes_of_gymnasium,
    one_by_one,
    tasks,
)
from turnwise.envs.pomdp import POMDP
from turnwise.envs.problems.classics import CLASSICS
from turnwise.envs.protocol import LaneEnv
from turnwise.envs.tabular import TabularEnv
from turnwise.exact.files.pomdp import read_pomdp
from turnwise.exact.files.pomdpx import read_pomdpx
from turnwise.recipes.own_environment import makes_one, module_and_name, name_of, rendering
from turnwise.recipes.own_problem import own_problem
from turnwise.recipes.settings.words import as_words, parse_settings
from turnwise.run.errors import InputError, SettingError
from turnwise.run.files.modules import callable_named, module_named

LONGEST = 100
"""steps of an episode of a problem that never ends, unless another horizon is asked for"""
FILES = (".pomdp", ".pomdp.gz", ".pomdpx", ".pomdpx.gz")
_KINDS = "a name, a .pomdp file, module:Class, a POMDP, a Gymnasium environment, or a function that makes one"


@dataclass(frozen=True)
class Environment:
    """An environment in lanes."""

    lanes: LaneEnv
    name: str
    discount: float | None
    """its own, if it has one"""
    file: Path | None = None
    """the file that it was read from, if it was"""
    source: Any = None
    """what `find_environment` was given, so that it finds as many lanes as one likes"""
    horizon: int | None = None
    """steps after which it was asked to cut episodes"""

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """While it is stepped: processes that step it are ended afterwards, whatever happens."""
        try:
            yield
        finally:
            if isinstance(self.lanes, GymnasiumLanes):
                self.lanes.close()

    @property
    def problem(self) -> POMDP | None:
        """The problem written out, if the environment is one."""
        return self.lanes.problem if isinstance(self.lanes, TabularEnv) else None


def find_environment(
    env: Any, lanes: int, horizon: int | None, *, render_mode: str | None = None, workers: int = 1
) -> Environment:
    """Lanes of an environment.

    `env`: a name of ours, a `.pomdp` or `.pomdpx` file, an id of Gymnasium, `module:ID` for one that a module
    registers, a class, function or problem as `module:Name`, a `POMDP` or the parts of one, a `LaneEnv`, a
    Gymnasium environment (of one lane: it is copied for each), or a function that makes one. Problems are in
    Gymnasium's timing: the first observation is shown, if one is defined. A name may have arguments behind it
    ("FrozenLake-v1 is_slippery=false"). An `Environment` is found again. `horizon`: steps after which an
    episode is cut; None: the environment's own. `render_mode`: what an environment of Gymnasium is asked to
    render; InputError if it does not. `workers`: processes that step it; SettingError for more than one where
    all lanes are stepped by array operations.
    """
    if isinstance(env, Environment):
        env = env.lanes if env.source is None else env.source
    if horizon is not None and horizon < 1:
        raise SettingError("horizon", horizon, "1 or more")
    asked = _Asked(lanes, horizon, render_mode, workers)
    if isinstance(env, str | Path):
        found = _named(str(env), asked)
    elif isinstance(env, Mapping):
        found = _made(own_problem(env), "problem", asked)
    elif makes_one(env):
        found = _from_factory(env, name_of(env), asked)
    else:
        found = _made(env, name_of(env), asked)
    if not isinstance(found.lanes, GymnasiumLanes):
        expect_one_worker(found.name, workers)
    if render_mode is not None and (does := _renders(found.lanes)) != render_mode:
        raise InputError(
            f"{found.name} was made with the render_mode {does!r}; expected {render_mode!r}, for which a "
            "function that makes one has to take render_mode"
        )
    return replace(found, source=env, horizon=horizon)


@dataclass(frozen=True)
class _Asked:
    """How an environment is wanted."""

    lanes: int
    horizon: int | None
    render_mode: str | None
    workers: int


def with_arguments(env: Any, kwargs: Mapping[str, Any] | Sequence[str]) -> Any:
    """`env`, a name or what makes one, with arguments of the environment, or with `KEY=VALUE` words of them.

    SettingError for arguments that it does not take, and for an environment that is made already.
    """
    words = as_words(kwargs, "env_kwargs")
    given = parse_settings(words, "env_kwargs")
    if not given:
        return env
    if isinstance(env, Environment):
        env = env.source
    named = isinstance(env, str | Path)
    if named and not str(env).lower().endswith(FILES):
        name, *own = shlex.split(str(env))
        return task_words(name, {**parse_settings(own, "env"), **given})
    if named or not makes_one(env):
        expected = "none: a problem, and an environment that is made already, take no arguments"
        raise SettingError("env_kwargs", " ".join(words), expected)
    expect_arguments(env, given)
    return functools.partial(env, **given)


def _made(env: Any, name: str, asked: _Asked) -> Environment:
    """Of an environment, or of a problem, that is made already."""
    if isinstance(env, POMDP):
        return _tabular(_shown(env), env.name, asked.horizon)
    if isinstance(env, TabularEnv):
        return _tabular(env.problem, env.problem.name, asked.horizon or env.horizon)
    if isinstance(env, VectorEnv):
        return Environment(lanes_of_gymnasium(env, asked.lanes, workers=asked.workers), name, None)
    if isinstance(env, gymnasium.Env):
        return Environment(_sync(lambda: _copied(env), asked), name, None)
    if isinstance(env, LaneEnv):
        return Environment(env, name, None)
    raise TypeError(f"env is {type(env).__name__}; expected {_KINDS}")


def _from_factory(make: Callable[[], Any], name: str, asked: _Asked) -> Environment:
    """Of what a class or function makes, of one for each lane."""
    factory = rendering(make, asked.render_mode)
    first: list[Any] = [factory()]
    if not isinstance(first[0], gymnasium.Env):
        return _made(own_problem(first[0]) or first[0], name, asked)
    if min(asked.workers, asked.lanes) > 1:  # what it holds, a socket perhaps, is no two processes' at once
        first.pop().close()
    return Environment(_sync(lambda: first.pop() if first else factory(), asked), name, None)


def is_environment(data: Any) -> bool:
    """Whether `data` is, or names, an environment and no file or folder of logs."""
    if isinstance(data, str | Path):
        if str(data).lower().endswith(FILES):
            return True
        name = str(data).partition(" ")[0]
        known = (*CLASSICS, *tasks())
        if name in known or name in map(environment_id, known):
            return True
        return not Path(data).exists() and (name in gymnasium.registry or module_and_name(name) is not None)
    return isinstance(data, POMDP | VectorEnv | gymnasium.Env | LaneEnv) or callable(data)


def copy_of(file: Path) -> str:
    """How a run calls its copy of a problem's file: "problem" with the file's own ending."""
    name = file.name.lower()
    return "problem" + next(end for end in sorted(FILES, key=len, reverse=True) if name.endswith(end))


def kept_copy(run: Path, name: str | None) -> str | None:
    """What `name` means for a run that learnt in it: the run's own copy, if it is a file that is gone."""
    if name is None or not name.lower().endswith(FILES) or Path(name).exists():
        return name
    copy = run / copy_of(Path(name))
    return str(copy) if copy.is_file() else name


def is_table(problem: Any) -> bool:
    """Whether `find_problem` finds it: a problem that is written out."""
    if isinstance(problem, POMDP | Mapping):
        return True
    name = str(problem) if isinstance(problem, str | Path) else ""
    return name in CLASSICS or name.lower().endswith(FILES)


def find_problem(problem: Any) -> tuple[POMDP, list[str]]:
    """(a POMDP, warnings of its file's reader): a `POMDP`, a file, a built-in one by name, or one's own."""
    if isinstance(problem, POMDP):
        return problem, []
    own = own_problem(problem)
    if own is not None:
        return own, []
    name = str(problem)
    if name in CLASSICS:
        return CLASSICS[name](), []
    path = Path(name)
    if not path.exists():
        known = ", ".join(CLASSICS)
        raise InputError(f"{name}: neither a file nor a built-in problem; these are {known}")
    return read_problem(path)


def read_problem(path: Path) -> tuple[POMDP, list[str]]:
    """(the POMDP of a file of either format, warnings of its reader)."""
    xml = path.name.lower().removesuffix(".gz").endswith(".pomdpx")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        problem = read_pomdpx(path) if xml else read_pomdp(path)
    return problem, [str(w.message) for w in caught]


def _named(words: str, asked: _Asked) -> Environment:
    if words.lower().endswith(FILES):
        if not Path(words).exists():
            raise SettingError("env", words, "a file that exists; there is no such file")
        return replace(_tabular(_shown(read_problem(Path(words))[0]), words, asked.horizon), file=Path(words))
    try:
        name, *own = shlex.split(words)
    except ValueError as e:  # an open quote, or nothing at all
        raise SettingError("env", words, _KINDS) from e
    given = parse_settings(own, "env")
    called = task_words(name, given)
    place = None if name in gymnasium.registry else module_and_name(name)
    if place is not None:
        module, attribute = place
        loaded = vars(module_named("env", name, module))
        if isinstance(loaded.get(attribute), POMDP | Mapping):
            found = _made(own_problem(f"{module}:{attribute}"), called, asked)
            return replace(found, name=called)
        if attribute in loaded:
            make = with_arguments(callable_named("env", name, module, attribute), given)
            return replace(_from_factory(make, called, asked), name=called)
        if attribute not in gymnasium.registry:
            classes = [n for n, x in loaded.items() if isinstance(x, type) and x.__module__ == module]
            expected = f"a class or function of {module}, or an id that it registers with Gymnasium"
            raise SettingError("env", name, expected + (f"; it has {', '.join(classes)}" if classes else ""))
        name = attribute
    if asked.render_mode is not None:
        given["render_mode"] = asked.render_mode
    found = lanes_by_id(name, asked.lanes, asked.horizon, workers=asked.workers, **given)
    if isinstance(found, TabularEnv):
        return _tabular(found.problem, called, asked.horizon)
    return Environment(found, called, None)


def _shown(problem: POMDP) -> POMDP:
    with suppress(ValueError):  # what is seen depends on the action, so nothing can be shown first
        return problem.showing_initial()
    return problem


def _tabular(problem: POMDP, name: str, horizon: int | None) -> Environment:
    return Environment(TabularEnv(problem, horizon or LONGEST), name, problem.discount)


def _sync(make: Callable[[], Any], asked: _Asked) -> GymnasiumLanes:
    """One environment after the other, in one process or in several."""

    def one() -> gymnasium.Env:
        env = make()
        if not isinstance(env, gymnasium.Env):
            raise TypeError(f"env made {type(env).__name__}; expected a gymnasium.Env")
        return env

    return GymnasiumLanes(one_by_one(one, asked.lanes, asked.horizon, asked.workers))


def _renders(lanes: LaneEnv) -> str | None:
    """The render_mode of an environment of Gymnasium; None for any other."""
    return lanes.envs.render_mode if isinstance(lanes, GymnasiumLanes) else None


def _copied(env: gymnasium.Env) -> gymnasium.Env:
    try:
        return copy.deepcopy(env)
    except Exception as e:  # whatever an environment holds
        raise InputError(
            f"{env} cannot be copied for each lane ({e}); expected a function that makes one, as lambda: ..."
        ) from e
