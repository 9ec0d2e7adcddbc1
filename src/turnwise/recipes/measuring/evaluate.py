"""Measure what was trained: a policy in live conversations, an agent or a plan in whole episodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from turnwise.recipes.environments import with_arguments
from turnwise.recipes.measuring import act_conversations, conversations, episodes, partner, solved, worlds
from turnwise.recipes.measuring.evaluation import Evaluation
from turnwise.recipes.opened import load
from turnwise.recipes.settings.engine import EngineSettings
from turnwise.recipes.settings.measure import ConversationSettings, EpisodeSettings, PartnerMeasure
from turnwise.recipes.settings.ray import RaySettings
from turnwise.recipes.solved import Solved
from turnwise.recipes.trained import Actor, ActPolicy, Counterpart, Policy, World
from turnwise.recipes.workers import expect_undivided
from turnwise.run.errors import SettingError

S = TypeVar("S")


def place_of(trained: Actor | World | Solved, on: Any, env_kwargs: Mapping[str, Any] | Sequence[str]) -> Any:
    """The environment to measure in, `on` or else that of training, with arguments if some are given."""
    if not env_kwargs:
        return on
    return with_arguments(trained.env if on is None else on, env_kwargs)


def _taken(kind: type[S], settings: dict[str, Any]) -> S:
    """Settings of a kind, taken out of all that are given."""
    names = [f.name for f in fields(kind)]  # type: ignore[arg-type]
    return kind(**{name: settings.pop(name) for name in names if name in settings})


def evaluate(trained: Any, on: Any = None, *, quiet: bool = False, **settings: Any) -> Evaluation:
    """Measure what `fit` or `load` returned, or a run folder, with a 95% interval.

    A `Policy` or an `ActPolicy` holds live conversations with a task: `on` is a task (`turnwise.HelpDesk()`),
    the name of a built-in one, or `package.module:Task`; by default the one that its logs come from, if they
    say so. An `Actor`, or the plan of a `World`, plays whole episodes: `on` is an environment, by default the
    one that it learnt in. So does a `Solved` POMDP: `on` is by default the problem that was solved.
    `settings`: fields of `ConversationSettings` (`episodes`, `seed`, `lanes`, `betas`, `validation_episodes`,
    `proposals`, `temperature`; `engine`, servers that speak for a policy) or of `EpisodeSettings`
    (`episodes`, `seed`, `lanes`, `greedy`, `horizon`), and `env_kwargs`, arguments of the environment; `ray`
    and `shards`, workers of Ray that hold the conversations or play the episodes of a trained agent.
    SettingError for a policy whose logs name no task, if none is given. Of a `Counterpart` it says how good a
    partner it is: `on` are logs, and `settings` are `policy`, `acts`, `policies` and `task`
    (`recipes/measuring/partner.py` says what they are), fields of `PartnerMeasure`, and how logs are read.

    With a run folder, evaluation.json and the report page are written into it.
    """
    if isinstance(trained, str | Path):
        trained = load(trained)
    if isinstance(trained, Actor | World | Solved):
        on = place_of(trained, on, settings.pop("env_kwargs", ()))
    if isinstance(trained, Counterpart):
        return _partner(trained, on, settings, quiet)
    servers, shards = _taken(EngineSettings, settings), _taken(RaySettings, settings)
    if isinstance(trained, Policy):
        asked = ConversationSettings(**settings)
        return conversations.measure(trained, on, asked, servers, shards, quiet=quiet)
    if servers.engine is not None:
        raise SettingError("engine", servers.engine, conversations.WORDS_ONLY)
    if isinstance(trained, ActPolicy):
        return act_conversations.measure(trained, on, ConversationSettings(**settings), shards, quiet=quiet)
    if isinstance(trained, Actor):
        return episodes.measure(trained, on, EpisodeSettings(**settings), shards, quiet=quiet)
    expect_undivided(shards)
    if isinstance(trained, World):
        return worlds.measure(trained, on, EpisodeSettings(**settings), quiet=quiet)
    if isinstance(trained, Solved):
        return solved.measure(trained, on, EpisodeSettings(**settings), quiet=quiet)
    raise TypeError(f"{type(trained).__name__} is neither a policy nor an agent; expected what fit returned")


def _partner(trained: Counterpart, logs: Any, settings: dict[str, Any], quiet: bool) -> Evaluation:
    if logs is None:
        raise SettingError(
            "logs", None, "logged conversations, some of which the partner has not learnt from"
        )
    given = {k: settings.pop(k) for k in ("policy", "acts", "policies", "task") if k in settings}
    asked = _taken(PartnerMeasure, settings)
    found = partner.measure(trained, logs, **given, settings=asked, reading=settings, quiet=quiet)
    return partner.evaluation(found)
