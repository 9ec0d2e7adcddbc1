"""From an environment to a POMDP learnt from random episodes in it, and a plan.

environment ──► episodes of random actions ──► EM ──► models ──► plan ──► its worth in the models and in truth
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np

from turnwise.algorithms.acts import pomdp
from turnwise.envs.pomdp import POMDP
from turnwise.evaluation.measures.intervals import Estimate, mean_interval
from turnwise.exact.files.write import write_pomdp
from turnwise.exact.learning.first_look import with_first_look
from turnwise.exact.learning.predictors import n_gram, nats_per_symbol, one_step
from turnwise.exact.learning.truth import described, random_episodes
from turnwise.recipes.catalogue import Algorithm
from turnwise.recipes.environments import Environment, copy_of
from turnwise.recipes.settings.train import RandomEpisodes
from turnwise.recipes.trained import World
from turnwise.recipes.training.acts.plans import (
    NOTES,
    plan_of,
    rehearsed,
    searching,
)
from turnwise.recipes.training.acts.playbooks import PROBLEM
from turnwise.recipes.training.job import Job
from turnwise.recipes.training.machine import Machine
from turnwise.run.errors import InputError
from turnwise.run.files.digests import digest_of
from turnwise.run.rehearsal import at_most
from turnwise.run.training import TrainingRun

LIVE, LIVE_ELSEWHERE = 10_000, 2_000
"""episodes by which a plan is valued in the environment, if it is a table, and if it is anything else"""
APART = 2_000
"""episodes that predictors are compared on, beside those that are learnt from"""


def prepare(
    algorithm: Algorithm, config: pomdp.Config, env: Environment, settings: RandomEpisodes, m: Machine
) -> Job[World]:
    """Draw the episodes. InputError if symbols or actions cannot be counted."""
    discount = config.discount if env.discount is None else env.discount
    config = replace(config, discount=discount)
    try:
        data, apart = (
            random_episodes(env.lanes, at_most(20, n), settings.steps, np.random.default_rng((m.seed, i)))
            for i, n in ((5, settings.episodes), (6, APART))
        )
    except TypeError as e:
        raise InputError(f"{env.name}: {e}") from e
    tried = np.flatnonzero(np.bincount(data.actions, minlength=data.action_symbols))
    made: dict[str, Any] = {}

    def train(run: TrainingRun) -> None:
        with searching(config, m, run) as (notes, watch):
            made["learnt"], made["planned"] = pomdp.train(
                rehearsed(config), data, tried, m.seed, notes, watch
            )

    def finish() -> tuple[World, dict[str, Any]]:
        learnt, planned = made["learnt"], made["planned"]
        model = learnt.models[0]
        found = World(model, planned.planner, m.out, env=env)
        found.save(m.out)
        problem = env.problem
        names = {} if problem is None else {"actions": problem.actions}
        write_pomdp(with_first_look(model.pomdp(discount, name="learnt", **names)), m.out / PROBLEM)
        live = mean_interval(
            found.live_returns(at_most(20, LIVE if problem is not None else LIVE_ELSEWHERE), m.seed),
            rng=np.random.default_rng(0),
            resamples=1000,
        )
        nats = {
            "this model": nats_per_symbol(model.log_likelihoods(apart), apart),
            "one step": nats_per_symbol(one_step(data, apart), apart),
            "3-gram": nats_per_symbol(n_gram(data, apart, 3), apart),
        }
        if problem is not None:
            nats["the true model"] = nats_per_symbol(described(problem).log_likelihoods(apart), apart)
        (m.out / NOTES).unlink(missing_ok=True)
        return found, {
            "env": env.name,
            "episodes": len(data),
            **_facts(learnt, planned, env.name, live),
            "nats_per_symbol": {k: {"mean": v, "standard_error": e} for k, (v, e) in nats.items()},
        }

    sizes = {
        "algorithm": algorithm.name,
        "environment": env.name,
        "episodes": len(data),
        "decisions": len(data.actions),
        "actions": data.action_symbols,
        "observations": data.observation_symbols,
    }
    return Job(
        algorithm=algorithm,
        settings=({"env": env.name}, m.run, settings, config),
        data=None,
        content={} if env.problem is None else {"env": _digest(env.problem)},
        copies={} if env.file is None else {copy_of(env.file): env.file},
        env=env,
        plan=plan_of(config, data, m.seed, sizes),
        train=train,
        finish=finish,
    )


def _facts(learnt: pomdp.Learnt, planned: pomdp.Planned, env: str, live: Estimate) -> dict[str, Any]:
    """The model and its plan, with what the plan is worth in the models and in the environment."""
    low, high = (float(x) for x in np.quantile(planned.worth, [0.025, 0.975]))
    promised = {"mean": float(planned.worth.mean()), "low": low, "high": high, "n": len(planned.worth)}
    earned = {"mean": live.mean, "low": live.low, "high": live.high, "n": live.n}
    return {
        "states": learnt.models[0].shape[0],
        "smoothing": learnt.smoothing,
        "worth": [
            {"role": "predicted", "name": "this plan, in models of the episodes, discounted", **promised},
            {"role": "true", "name": f"this plan in {env}, discounted", **earned},
        ],
        **planned.facts(),
    }


def _digest(problem: POMDP) -> str:
    """Of all that a problem is, but not of its name, which may be a file's."""
    return digest_of(*(getattr(problem, f.name) for f in fields(problem) if f.name != "name"))
