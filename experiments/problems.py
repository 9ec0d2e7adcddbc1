"""What the experiments on written-out POMDPs share: reading them, and what an agent's policy is worth."""

from __future__ import annotations

import json
import math
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import DATA

from turnwise.data.steps import StepInputs
from turnwise.envs.pomdp import POMDP
from turnwise.envs.tabular import TabularEnv
from turnwise.exact.files.pomdp import read_pomdp
from turnwise.models.agents.actor_critic import ActorCritic
from turnwise.rollout.episodes.lanes import StepLanes
from turnwise.run.seeds import generator


def read_problem(file: str) -> POMDP:
    """A problem of the collection, as its file has it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some rows of these files sum to .999999
        return read_pomdp(DATA / "pomdp" / file)


def in_gymnasium_timing(problem: POMDP) -> POMDP:
    """The problem with its first observation shown, if it has one: not if observations depend on actions."""
    with suppress(ValueError):
        problem = problem.showing_initial()
    return problem


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines that a run logged."""
    return [json.loads(x) for x in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def discounted_returns(problem: POMDP, agent: Any, episodes: int, seed: int) -> np.ndarray:
    """[episodes], cut where what follows weighs 1e-5, or after 1,000 steps if the discount is .99 or more."""
    longest = math.ceil(math.log(1e-5) / math.log(problem.discount)) if problem.discount < 0.99 else 1000
    torch.manual_seed(seed + 1_000_003)
    lanes = StepLanes(TabularEnv(problem), episodes, generator(seed, 7), gamma=problem.discount)
    lanes.episodes(agent, longest)
    return lanes.finished().discounted


def mean_and_error(returns: np.ndarray) -> dict[str, float]:
    """The mean and its standard error."""
    return {"mean": float(returns.mean()), "error": float(returns.std(ddof=1) / len(returns) ** 0.5)}


def logit_table(agent: ActorCritic, symbols: int) -> torch.Tensor:
    """[O, A], logits of an agent without memory at each of its observations."""
    zeros = torch.zeros(symbols)
    inputs = StepInputs(torch.arange(symbols), zeros.long(), zeros, zeros.bool())
    with torch.no_grad():
        return agent.head(agent.memory.step(inputs, agent.memory.initial_state(symbols))[0])


def policy_table(agent: ActorCritic, symbols: int) -> np.ndarray:
    """[O, A], P(action | observation) of an agent without memory."""
    return logit_table(agent, symbols).double().softmax(-1).numpy()
