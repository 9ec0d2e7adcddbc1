"""What each family of algorithms takes out of what was given, and its job."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any

from turnwise.data.dataset import FeedbackSet, Logs
from turnwise.data.files.feedback import read_feedback
from turnwise.data.files.logs import read_logs
from turnwise.exact.learning.truth import LANES
from turnwise.models.agents.settings import CriticSpec, MemorySpec
from turnwise.recipes.catalogue import Algorithm, Family
from turnwise.recipes.environments import find_environment, is_environment, with_arguments
from turnwise.recipes.settings.engine import EngineSettings
from turnwise.recipes.settings.learning import Learning
from turnwise.recipes.settings.ray import RaySettings
from turnwise.recipes.settings.train import (
    ActSettings,
    Ending,
    EnsembleSettings,
    EnvironmentSettings,
    FeedbackReading,
    FeedbackSettings,
    LogReading,
    LogSettings,
    PartnerSettings,
    PrivilegedCritic,
    RandomEpisodes,
    ReplySettings,
    RewardShaping,
    RunSettings,
    Start,
    TalkSettings,
)
from turnwise.recipes.trained import Actor, ActPolicy, Codebooks, Counterpart, Judge, Policy
from turnwise.recipes.training import acting, talk
from turnwise.recipes.training.acts import agents, codebooks, plans, talkers, worlds
from turnwise.recipes.training.feedback import preferences, replies, reward
from turnwise.recipes.training.job import Job, carry_out
from turnwise.recipes.training.learning import expect_arithmetic
from turnwise.recipes.training.logs import partners, policies
from turnwise.recipes.training.machine import Machine, machine
from turnwise.run.errors import InputError, SettingError

SPREAD: tuple[Family, ...] = ("logs", "partners", "reward", "preferences", "replies")
"""families whose training takes several processes"""


def prepare_and_carry_out(
    algorithm: Algorithm,
    config: Any,
    data: Any,
    given: Mapping[str, Any],
    run: RunSettings,
    *,
    quiet: bool,
    plan: Callable[[Job[Any]], Any] | None = None,
) -> Any:
    """Prepare and carry out a run; or hand its job to `plan`, and give back what that returns."""
    strategy = given.get("strategy", "ddp") if algorithm.family in SPREAD else None
    auto = "cpu" if algorithm.family in ("acting", "act_agents", "plans", "codebooks", "talkers") else "auto"
    with machine(run, quiet=quiet, strategy=strategy, auto=auto) as m:
        job = _PREPARE[algorithm.family](algorithm, config, data, dict(given), m)
        if plan is not None:
            return plan(job)
        done = carry_out(job, m)
        return None if done is None else replace(done[0], result=done[1])


def _logs(algorithm: Algorithm, config: Any, data: Any, given: dict[str, Any], m: Machine) -> Job[Policy]:
    start, critic = _start(algorithm, given), None
    if algorithm.holds == "a critic":
        critic = given.pop("critic", None)
        if critic is None:
            raise InputError(f"{algorithm.title} needs a critic; expected the run of MC, ILQL or TurnIQL")
    apart = given.pop("heldout_logs", None)
    kinds = (LogSettings, LogReading, Ending, Learning)
    settings, reading, ending, learning = (_taken(kind, given) for kind in kinds)
    _expect_nothing(algorithm, given, *kinds)
    expect_arithmetic(learning, m.device)
    read, apart, settings = _read(data, apart, reading, settings, m)
    return policies.prepare(algorithm, config, read, settings, start, ending, learning, m, apart, critic)


def _partners(
    algorithm: Algorithm, config: Any, data: Any, given: dict[str, Any], m: Machine
) -> Job[Counterpart]:
    start, apart = _start(algorithm, given), given.pop("heldout_logs", None)
    kinds = (PartnerSettings, LogReading, Learning)
    settings, reading, learning = (_taken(kind, given) for kind in kinds)
    _expect_nothing(algorithm, given, *kinds)
    expect_arithmetic(learning, m.device)
    read, apart, settings = _read(data, apart, reading, settings, m)
    return partners.prepare(algorithm, config, read, settings, start, learning, m, apart)


def _codebooks(
    algorithm: Algorithm, config: Any, data: Any, given: dict[str, Any], m: Machine
) -> Job[Codebooks]:
    for name in ("policy", "reward"):
        if given.pop(name, None) is not None:
            raise TypeError(f"{algorithm.title} takes no {name}: they are made of logs alone")
    apart = given.pop("heldout_logs", None)
    settings, reading = _taken(ActSettings, given), _taken(LogReading, given)
    _expect_nothing(algorithm, given, ActSettings, LogReading)
    read, apart, settings = _read(data, apart, reading, settings, m)
    return codebooks.prepare(algorithm, config, read, settings, m, apart)


def _act_agents(
    algorithm: Algorithm, config: Any, data: Any, given: dict[str, Any], m: Machine
) -> Job[ActPolicy]:
    for name in ("policy", "reward"):
        if given.pop(name, None) is not None:
            raise TypeError(f"{algorithm.title} takes no {name}: it learns from logged acts alone")
    acts, apart = given.pop("acts", None), given.pop("heldout_logs", None)
    kinds = (ActSettings, MemorySpec, LogReading, Ending)
    settings, memory, reading, ending = (_taken(kind, given) for kind in kinds)
    _expect_nothing(algorithm, given, *kinds)
    read, apart, settings = _read(data, apart, reading, settings, m)
    return agents.prepare(algorithm, config, read, settings, memory, acts, ending, m, apart)


def _plans(algorithm: Algorithm, config: Any, data: Any, given: dict[str, Any], m: Machine) -> Job[Any]:
    if is_environment(data):
        for name in ("policy", "acts", "reward", "heldout_logs"):
            if given.pop(name, None) is not None:
                raise TypeError(f"{algorithm.title} takes no {name} in an environment: there is no talk")
        settings = _taken(RandomEpisodes, given)
        for kind in (ActSettings, LogReading, Ending):
            _taken(kind, given)  # of logs: the command line gives them all
        data = with_arguments(data, given.pop("env_kwargs", ()))
        _expect_nothing(algorithm, given, RandomEpisodes)
        env = find_environment(data, LANES, None)
        return worlds.prepare(algorithm, config, env, settings, m)
    _taken(RandomEpisodes, given)
    if given.pop("env_kwargs", ()):
        raise TypeError(f"{algorithm.title} takes no env_kwargs beside logs: there is no environment")
    if given.pop("reward", None) is not None:
        raise TypeError(f"{algorithm.title} takes no reward: it learns from logged outcomes")
    policy, acts, apart = (given.pop(name, None) for name in ("policy", "acts", "heldout_logs"))
    kinds = (ActSettings, LogReading, Ending)
    settings, reading, ending = (_taken(kind, given) for kind in kinds)
    _expect_nothing(algorithm, given, *kinds)
    read, apart, settings = _read(data, apart, reading, settings, m)
    return plans.prepare(algorithm, config, read, settings, acts, policy, ending, m, apart)


def _talkers(
    algorithm: Algorithm, config: Any, data: Any, given: dict[str, Any], m: Machine
) -> Job[ActPolicy]:
    if given.pop("reward", None) is not None:
        raise TypeError(f"{algorithm.title} takes no reward: its partner says what a talk earned")
    policy, acts, belief = (given.pop(name, None) for name in ("policy", "acts", "belief"))
    memory, critic = _taken(MemorySpec, given), _taken(PrivilegedCritic, given)
    _expect_nothing(algorithm, given, MemorySpec, PrivilegedCritic)
    return talkers.prepare(algorithm, config, data, policy, acts, memory, critic, belief, m)


def _conversations(
    algorithm: Algorithm, config: Any, data: Any, given: dict[str, Any], m: Machine
) -> Job[Policy]:
    if given.pop("reward", None) is not None:
        raise TypeError(f"{algorithm.title} takes no reward: its task says what a conversation earned")
    policy, critic = _start(algorithm, given), given.pop("critic", None)
    logs, reading = given.pop("replay_logs", None), _taken(LogReading, given) if algorithm.replays else None
    if logs is not None and reading is None:
        raise TypeError(f"{algorithm.title} takes no replay_logs: it learns from what it has just held")
    settings, learning = _taken(TalkSettings, given), _taken(Learning, given)
    _expect_nothing(algorithm, given, TalkSettings, Learning)
    expect_arithmetic(learning, m.device)
    _expect_no_heldout_loss(learning, "conversations that are held")
    read = None if logs is None else read_logs(logs, **vars(reading), quiet=m.silent)
    return talk.prepare(algorithm, config, data, policy, critic, read, settings, learning, m)


def _reward(algorithm: Algorithm, config: Any, data: Any, given: dict[str, Any], m: Machine) -> Job[Judge]:
    start = _start(algorithm, given)
    feedback = _feedback(data, given, m)
    kinds = (FeedbackSettings, EnsembleSettings, Learning)
    settings, members, learning = (_taken(kind, given) for kind in kinds)
    _expect_nothing(algorithm, given, FeedbackReading, *kinds)
    expect_arithmetic(learning, m.device)
    return reward.prepare(algorithm, config, feedback(), start, settings, members, learning, m)


def _preferences(
    algorithm: Algorithm, config: Any, data: Any, given: dict[str, Any], m: Machine
) -> Job[Policy]:
    judge = given.pop("reward", None)
    policy = _start(algorithm, given)
    feedback = _feedback(data, given, m)
    kinds = (FeedbackSettings, ReplySettings, Learning)
    settings, sampled, learning = (_taken(kind, given) for kind in kinds)
    _expect_nothing(algorithm, given, FeedbackReading, *kinds)
    expect_arithmetic(learning, m.device)
    return preferences.prepare(algorithm, config, feedback(), policy, judge, settings, sampled, learning, m)


def _feedback(data: Any, given: dict[str, Any], m: Machine) -> Callable[[], FeedbackSet]:
    """What reads the feedback, once all settings are known to be good."""
    kind, reading = given.pop("kind", None), _taken(FeedbackReading, given)
    return lambda: read_feedback(data, kind, **vars(reading), quiet=m.silent)


def _replies(algorithm: Algorithm, config: Any, data: Any, given: dict[str, Any], m: Machine) -> Job[Policy]:
    judge = given.pop("reward", None)
    if judge is None or judge in ((), []):
        raise InputError(f"{algorithm.title} needs a reward; expected a reward model or a function")
    policy = _start(algorithm, given)
    kinds = (FeedbackReading, FeedbackSettings, ReplySettings, RewardShaping, Learning)
    reading, settings, sampled, shaping, learning = (_taken(kind, given) for kind in kinds)
    engine, shards = _taken(EngineSettings, given), _taken(RaySettings, given)
    _expect_nothing(algorithm, given, *kinds, EngineSettings, RaySettings)
    expect_arithmetic(learning, m.device)
    _expect_no_heldout_loss(learning, "replies that are sampled")
    prompts = replies.find_prompts(data, reading, settings.heldout, quiet=m.silent)
    return replies.prepare(
        algorithm, config, prompts, policy, judge, settings, sampled, shaping, learning, engine, shards, m
    )


def _acting(algorithm: Algorithm, config: Any, data: Any, given: dict[str, Any], m: Machine) -> Job[Actor]:
    if given.pop("reward", None) is not None:
        raise TypeError(f"{algorithm.title} takes no reward: it learns from its own acting")
    policy, kwargs = given.pop("policy", None), given.pop("env_kwargs", ())
    kinds: tuple[type[Any], ...] = (EnvironmentSettings, MemorySpec)
    settings, memory = (_taken(kind, given) for kind in kinds)
    critic = _taken(CriticSpec, given) if algorithm.critic else None
    _expect_nothing(algorithm, given, *kinds, *([CriticSpec] if algorithm.critic else []))
    config = replace(config, lanes=acting.lanes_for(config, m))
    env = find_environment(
        with_arguments(data, kwargs), config.lanes, settings.horizon, workers=settings.workers
    )
    return acting.prepare(algorithm, config, env, memory, critic, policy, settings, m)


_PREPARE: dict[Family, Callable[..., Job[Any]]] = {
    "logs": _logs,
    "partners": _partners,
    "codebooks": _codebooks,
    "act_agents": _act_agents,
    "plans": _plans,
    "talkers": _talkers,
    "conversations": _conversations,
    "reward": _reward,
    "preferences": _preferences,
    "replies": _replies,
    "acting": _acting,
}


def _read(
    data: Any, apart: Any, reading: LogReading, settings: Any, m: Machine
) -> tuple[Logs, Logs | None, Any]:
    """The logs, those that are held out if they are apart, and the settings, which name these."""
    read = read_logs(data, **vars(reading), quiet=m.silent)
    if apart is None:
        return read, None, settings
    apart = read_logs(apart, **{**vars(reading), "agent_role": read[0].agent_role}, quiet=m.silent)
    return read, apart, replace(settings, heldout_logs=apart.source)


# What was given is one dict of keywords. Each function below takes out of it what it knows; what is left at
# the end is known to nobody, and is refused by name.


def _start(algorithm: Algorithm, given: dict[str, Any]) -> Any:
    """The `Start` of an algorithm that may begin from nothing, or the policy that it begins with."""
    if given.get("reward") is None:
        given.pop("reward", None)
    policy = given.pop("policy", None)
    if algorithm.fresh:
        if policy is not None:
            raise TypeError(f"{algorithm.title} takes no policy; expected model=..., the model to begin with")
        return _taken(Start, given)
    if policy is None:
        raise InputError(f"{algorithm.title} needs a policy to begin with; expected the run of BC")
    return policy


def _expect_no_heldout_loss(learning: Learning, what: str) -> None:
    """SettingError for settings that mean nothing to a policy which learns from what it samples."""
    for name, default in (("keep", "last"), ("patience", None), ("heldout_every", None)):
        if (value := getattr(learning, name)) != default:
            raise SettingError(name, value, f"{default or 'nothing'}: {what} have no held-out loss")
    if learning.lora_dropout:
        raise SettingError(
            "lora_dropout", learning.lora_dropout, "0: a policy learns from what it sampled as it sampled it"
        )


def _taken(kind: type[Any], given: dict[str, Any]) -> Any:
    """The settings of a kind, taken out of what was given."""
    names = [f.name for f in fields(kind)]
    return kind(**{name: given.pop(name) for name in names if name in given})


def _expect_nothing(algorithm: Algorithm, given: Mapping[str, Any], *kinds: type[Any]) -> None:
    """TypeError for a setting that the algorithm does not have."""
    if not given:
        return
    fresh = [Start] if algorithm.fresh else []
    names = ", ".join(f.name for kind in (*kinds, *fresh) for f in fields(kind))
    raise TypeError(f"{algorithm.title} has no setting {next(iter(given))!r}; expected one of {names}")
