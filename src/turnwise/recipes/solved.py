"""A solved POMDP: what is known of its optimum, and the policy, in memory or from its run's folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from turnwise.envs.pomdp import POMDP
from turnwise.exact.alpha_policy import AlphaPolicy, load_policy
from turnwise.exact.controllers import Controller
from turnwise.exact.files.appl import read_appl
from turnwise.exact.files.saved import load_problem
from turnwise.exact.player import Player
from turnwise.run import outwards
from turnwise.run.errors import InputError
from turnwise.run.folder import read_result

PROBLEM, POLICY, CONTROLLER = "problem.npz", "policy.npz", "controller.npz"
"""files of a solved run: the problem as it was solved; alpha vectors, or a controller of limited memory"""
APPL = ".policy"
"""how the name of a file of APPL's solvers ends"""


@dataclass(frozen=True)
class Solved:
    """A solved POMDP: the optimal value lies between `lower` and `upper`."""

    problem: POMDP | None
    """None for the policy of a file that does not say which problem it is for."""
    lower: float | None
    """Value of the policy, which is a lower bound of the optimum; None if nobody proved one."""
    upper: float | None
    """Upper bound of the optimum; None if nothing is known."""
    policy: AlphaPolicy | Controller = field(repr=False)
    """Alpha vectors of the whole history's policy, or the best controller of limited memory."""
    folder: Path | None = None
    """The run folder; None if nothing was written."""
    report: Path | None = None
    result: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """Everything that was found, as result.json has it."""

    def __str__(self) -> str:
        if self.problem is None or self.lower is None:
            return "a policy of which no bound is known"
        upper = "unknown" if self.upper is None else outwards.upper(self.upper)
        return f"{self.problem.name}: optimal value between {outwards.lower(self.lower)} and {upper}"

    @property
    def env(self) -> POMDP | None:
        """Where it acts unless something else is asked for: the problem itself."""
        return self.problem

    def player(self, lanes: int | None = None, *, seed: int = 0) -> Player:
        """Something that acts: `player.act(observation)`, in one episode or in `lanes` at a time.

        It keeps the belief, `player.belief`. `seed` is of actions that are drawn. InputError for a policy
        whose problem is not known.
        """
        if self.problem is None:
            raise InputError("the policy's problem is not known; expected the folder of a solved run")
        return Player(self.problem, self.policy, lanes, seed=seed)


def is_solved(path: Path) -> bool:
    """Whether a folder is a solved run, or a file a policy of APPL."""
    return (path / PROBLEM).is_file() or (path.name.lower().endswith(APPL) and path.is_file())


def load_solved(path: Path) -> Solved:
    """A solved run's folder, or a `.policy` file, beside which the run's problem may lie."""
    if path.is_file():
        problem = path.parent / PROBLEM
        return Solved(load_problem(problem) if problem.is_file() else None, None, None, read_appl(path))
    problem, result = load_problem(path / PROBLEM), read_result(path)
    policy: AlphaPolicy | Controller
    if (path / CONTROLLER).is_file():
        policy = _controller(path / CONTROLLER)
    else:
        policy = load_policy(path / POLICY)
    report = path / "report.html"
    return Solved(
        problem,
        result.get("lower"),
        result.get("upper"),
        policy,
        path,
        report if report.is_file() else None,
        result,
    )


def _controller(path: Path) -> Controller:
    try:
        with np.load(path, allow_pickle=False) as found:
            return Controller(found["probabilities"])
    except (OSError, ValueError, KeyError, EOFError) as e:
        raise InputError(f"{path}: expected a controller as turnwise solve writes it (.npz): {e}") from e
