"""Which environment `--env` means."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from turnwise.envs.gymnasium.lanes import lanes_by_id
from turnwise.envs.pomdp import POMDP
from turnwise.envs.protocol import LaneEnv
from turnwise.envs.tabular import TabularEnv
from turnwise.exact.files.pomdp import read_pomdp
from turnwise.run.errors import InputError

LONGEST = 100
"""steps of an episode of a problem that never ends, unless another horizon is asked for"""


def find_environment(name: str, lanes: int, horizon: int | None) -> tuple[LaneEnv, float | None]:
    """Lanes of one of ours, a `.pomdp` file or an id of Gymnasium; and its discount, if it has one.

    Problems are in Gymnasium's timing: the first observation is shown, where one is defined.
    """
    if horizon is not None and horizon < 1:
        raise InputError(f"--horizon {horizon}: expected 1 or more")
    if name.lower().endswith((".pomdp", ".pomdp.gz", ".pomdpx")):
        if not Path(name).exists():
            raise InputError(f"--env {name}: no such file")
        table = read_pomdp(Path(name))
        with suppress(ValueError):  # what is seen depends on the action
            table = table.showing_initial()
        return TabularEnv(table, horizon or LONGEST), table.discount
    env = lanes_by_id(name, lanes, horizon)
    if isinstance(env, TabularEnv):
        return TabularEnv(env.problem, horizon or LONGEST), env.problem.discount
    return env, None


def problem_of(env: LaneEnv) -> POMDP | None:
    """The problem written out, where the environment is one."""
    return env.problem if isinstance(env, TabularEnv) else None
