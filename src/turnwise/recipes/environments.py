"""Which environment is meant: one of ours by name, a file, an id of Gymnasium, or an object."""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
from gymnasium.vector import VectorEnv

from turnwise.envs.gymnasium.lanes import (
    GymnasiumLanes,
    environment_id,
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
from turnwise.recipes.own_problem import own_problem
from turnwise.run.errors import InputError, SettingError

LONGEST = 100
"""steps of an episode of a problem that never ends, unless another horizon is asked for"""
FILES = (".pomdp", ".pomdp.gz", ".pomdpx", ".pomdpx.gz")
_KINDS = "a name, a .pomdp file, a POMDP, a Gymnasium environment, or a function that makes one"


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
    """what was given to find it, from which it is found again with other lanes"""

    @property
    def problem(self) -> POMDP | None:
        """The problem written out, if the environment is one."""
        return self.lanes.problem if isinstance(self.lanes, TabularEnv) else None


def find_environment(
    env: Any, lanes: int, horizon: int | None, *, render_mode: str | None = None
) -> Environment:
    """Lanes of an environment.

    `env`: a name of ours, a `.pomdp` or `.pomdpx` file, an id of Gymnasium, a `POMDP`, a `LaneEnv`, a
    Gymnasium environment (of one lane: it is copied for each), or a function that makes one. Problems are in
    Gymnasium's timing: the first observation is shown, if one is defined. An `Environment` is found again.
    `horizon`: steps after which an episode is cut; None: the environment's own. `render_mode`: what an
    environment of Gymnasium is asked to render; InputError if it does not.
    """
    if isinstance(env, Environment):
        env = env.lanes if env.source is None else env.source
    found = replace(_found(env, lanes, horizon, render_mode), source=env)
    if render_mode is not None and (does := _renders(found.lanes)) != render_mode:
        raise InputError(
            f"{found.name} was made with the render_mode {does!r}; expected {render_mode!r}, for which a "
            "function that makes one has to take render_mode"
        )
    return found


def _found(env: Any, lanes: int, horizon: int | None, render_mode: str | None) -> Environment:
    if horizon is not None and horizon < 1:
        raise SettingError("horizon", horizon, "1 or more")
    if isinstance(env, str | Path):
        return _named(str(env), lanes, horizon, render_mode)
    if isinstance(env, POMDP):
        return _tabular(_shown(env), env.name, horizon)
    if isinstance(env, TabularEnv):
        return _tabular(env.problem, env.problem.name, horizon or env.horizon)
    if isinstance(env, VectorEnv):
        return Environment(lanes_of_gymnasium(env, lanes), _name_of(env), None)
    if isinstance(env, gymnasium.Env):
        return Environment(_sync(lambda: _copied(env), lanes, horizon), _name_of(env), None)
    if isinstance(env, Callable):
        return Environment(_sync(_rendering(env, render_mode), lanes, horizon), _name_of(env), None)
    if isinstance(env, LaneEnv):
        return Environment(env, _name_of(env), None)
    raise TypeError(f"env is {type(env).__name__}; expected {_KINDS}")


def is_environment(data: Any) -> bool:
    """Whether `data` is, or names, an environment and no file or folder of logs."""
    if isinstance(data, str | Path):
        name = str(data)
        known = (*CLASSICS, *tasks())
        return (
            name.lower().endswith(FILES)
            or name in known
            or name in map(environment_id, known)
            or (not Path(name).exists() and name in gymnasium.registry)
        )
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


def _named(name: str, lanes: int, horizon: int | None, render_mode: str | None) -> Environment:
    if name.lower().endswith(FILES):
        if not Path(name).exists():
            raise SettingError("env", name, "a file that exists; there is no such file")
        return replace(_tabular(_shown(read_problem(Path(name))[0]), name, horizon), file=Path(name))
    found = lanes_by_id(name, lanes, horizon, **({} if render_mode is None else {"render_mode": render_mode}))
    if isinstance(found, TabularEnv):
        return _tabular(found.problem, name, horizon)
    return Environment(found, name, None)


def _shown(problem: POMDP) -> POMDP:
    with suppress(ValueError):  # what is seen depends on the action, so nothing can be shown first
        return problem.showing_initial()
    return problem


def _tabular(problem: POMDP, name: str, horizon: int | None) -> Environment:
    return Environment(TabularEnv(problem, horizon or LONGEST), name, problem.discount)


def _sync(make: Callable[[], Any], lanes: int, horizon: int | None) -> GymnasiumLanes:
    """One environment after the other, `lanes` of them."""

    def one() -> gymnasium.Env:
        env = make()
        if not isinstance(env, gymnasium.Env):
            raise TypeError(f"env made {type(env).__name__}; expected a gymnasium.Env")
        return env

    return GymnasiumLanes(one_by_one(one, lanes, horizon))


def _rendering(make: Callable[..., Any], render_mode: str | None) -> Callable[[], Any]:
    """What makes an environment that renders, if `make` can be asked for it."""
    if render_mode is None:
        return make
    try:
        taken = inspect.signature(make).parameters.values()
    except (TypeError, ValueError):  # what is built in may have no signature
        return make
    asks = any(p.name == "render_mode" or p.kind is p.VAR_KEYWORD for p in taken)
    return partial(make, render_mode=render_mode) if asks else make


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


def _name_of(env: Any) -> str:
    spec = getattr(env, "spec", None)
    return str(spec.id) if spec is not None else getattr(env, "__name__", type(env).__name__)
