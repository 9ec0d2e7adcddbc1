"""Every algorithm's settings: what they refuse, and that a number's range stands with the number."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from dataclasses import fields
from typing import Any

import pytest

import turnwise.algorithms
from turnwise.algorithms.feedback import dpo, kto, orpo, reward
from turnwise.algorithms.logs import awr, bc, ilql, mc, turn_iql
from turnwise.algorithms.replies import best_of_n, grpo, online_dpo, reply_reinforce, rloo, token_ppo
from turnwise.run.errors import SettingError
from turnwise.run.metrics import Metric

MODULES = [
    importlib.import_module(m.name)
    for m in pkgutil.walk_packages(turnwise.algorithms.__path__, "turnwise.algorithms.")
    if not m.ispkg
]


@pytest.mark.parametrize("module", MODULES, ids=lambda m: m.__name__.removeprefix("turnwise.algorithms."))
def test_every_file_reads_in_the_same_order(module: Any) -> None:
    """What can be set, what is logged, what is minimised, one step, all of them.

    What is found by counting has no optimizer, and neither a loss nor a step of its gradient.
    """
    source = inspect.getsource(module)
    by_gradient = any(f.name == "optimizer" for f in fields(module.Config))
    steps = ("def loss(", "def update(") if by_gradient else ()
    assert by_gradient == ("def update(" in source)
    parts = ("class Config:", "METRICS: ", *steps, "def train(")
    places = [source.index("\n" + part) for part in parts]
    assert places == sorted(places) and module.__doc__


@pytest.mark.parametrize("module", MODULES, ids=lambda m: m.__name__.removeprefix("turnwise.algorithms."))
def test_each_number_is_checked(module: Any) -> None:
    """Nothing takes a number that is not finite; the defaults work; each metric says what it is."""
    config = module.Config()
    for f in fields(config):
        if isinstance(getattr(config, f.name), int | float):
            with pytest.raises(SettingError, match=f"{f.name} is nan"):
                module.Config(**{f.name: float("nan")})
    for metric in module.METRICS.values():
        assert isinstance(metric, Metric) and metric.what and metric.what.strip(". ") == metric.what


@pytest.mark.parametrize(
    ("config", "settings", "said"),
    [
        (bc.Config, {"keep_top": 0.0}, "keep_top is 0.0; expected a number above 0 and at most 1"),
        (ilql.Config, {"tau": 7.0}, "tau is 7.0; expected a number between 0 and 1"),
        (ilql.Config, {"top_k": 0}, "top_k is 0; expected 1 or more"),
        (mc.Config, {"gamma": 1.01}, "gamma is 1.01; expected a number from 0 to 1"),
        (turn_iql.Config, {"proposals": 0}, "proposals is 0; expected 1 or more"),
        (awr.Config, {"beta": -1.0}, "beta is -1.0; expected 0 or more"),
        (awr.Config, {"most_weight": 0.0}, "most_weight is 0.0; expected a number above 0"),
        (
            dpo.Config,
            {"formula": "ipo", "beta": 0.0},
            "beta is 0.0; expected a number above 0 for form",
        ),
        (dpo.Config, {"formula": "hinge"}, "formula is 'hinge'; expected dpo, ipo, conservative, robust or"),
        (dpo.Config, {"noise": 0.2}, "noise is 0.2; expected formula conservative or robust.*; found dpo"),
        (
            dpo.Config,
            {"noise": 0.5, "formula": "robust"},
            "noise is 0.5; expected a number from 0 to below",
        ),
        (kto.Config, {"liked_weight": -1.0}, "liked_weight is -1.0; expected 0 or more"),
        (orpo.Config, {"weight": -1.0}, "weight is -1.0; expected 0 or more"),
        (reward.Config, {"centring": -1.0}, "centring is -1.0; expected 0 or more"),
        (rloo.Config, {"group": 1}, "group is 1; expected 2 or more"),
        (grpo.Config, {"group": 1}, "group is 1; expected 2 or more"),
        (online_dpo.Config, {"group": 1}, "group is 1; expected 2 or more"),
        (best_of_n.Config, {"group": 0}, "group is 0; expected 1 or more"),
        (rloo.Config, {"minibatches": 17}, "minibatches is 17; expected at most the 16 prompts of a step"),
        (
            token_ppo.Config,
            {"kl_target": 1.0, "beta": 0.0},
            "beta is 0.0; expected a number above 0 with kl",
        ),
        (
            reply_reinforce.Config,
            {"prompts_per_step": 1},
            "prompts_per_step is 1; expected 2 or more for b",
        ),
    ],
)
def test_what_a_setting_does_not_take(config: Any, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingError, match=said):
        config(**settings)
