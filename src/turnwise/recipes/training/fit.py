"""Train: one function for every algorithm."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from turnwise.data.dataset import FeedbackSet
from turnwise.data.files.feedback import read_feedback
from turnwise.data.files.logs import read_logs
from turnwise.exact.learning.truth import LANES
from turnwise.models.agents.settings import CriticSpec, MemorySpec
from turnwise.recipes.catalogue import Algorithm, Family, algorithm_of
from turnwise.recipes.environments import find_environment, is_environment, with_arguments
from turnwise.recipes.settings.train import (
    ActSettings,
    Ending,
    EnsembleSettings,
    EnvironmentSettings,
    FeedbackReading,
    FeedbackSettings,
    LogReading,
    LogSettings,
    RandomEpisodes,
    ReplySettings,
    RewardShaping,
    RunSettings,
    Start,
)
from turnwise.recipes.trained import Actor, ActPolicy, Codebooks, Judge, Policy
from turnwise.recipes.training import (
    act_agents,
    acting,
    codebooks,
    logs,
    plans,
    preferences,
    replies,
    reward,
    worlds,
)
from turnwise.recipes.training.job import Job, carry_out
from turnwise.recipes.training.machine import Machine, machine
from turnwise.run.errors import InputError

if TYPE_CHECKING:
    from turnwise.algorithms.acting import a2c, ppo, r2d2, reinforce, sac
    from turnwise.algorithms.acts import bc as act_bc
    from turnwise.algorithms.acts import codebooks as act_codebooks
    from turnwise.algorithms.acts import cql as act_cql
    from turnwise.algorithms.acts import iql as act_iql
    from turnwise.algorithms.acts import mc as act_mc
    from turnwise.algorithms.acts import pomdp
    from turnwise.algorithms.feedback import dpo, kto, orpo, simpo
    from turnwise.algorithms.feedback.reward import Config as RewardConfig
    from turnwise.algorithms.logs import bc, ilql, mc, turn_iql
    from turnwise.algorithms.replies import best_of_n, grpo, online_dpo, reply_reinforce, rloo, token_ppo

    FromLogs = bc.Config | mc.Config | ilql.Config | turn_iql.Config
    FromFeedback = dpo.Config | kto.Config | simpo.Config | orpo.Config
    FromOwnReplies = (
        rloo.Config
        | grpo.Config
        | token_ppo.Config
        | reply_reinforce.Config
        | online_dpo.Config
        | best_of_n.Config
    )
    Speaks = FromLogs | FromFeedback | FromOwnReplies
    Codes = act_codebooks.Config
    Means = act_bc.Config | act_mc.Config | act_iql.Config | act_cql.Config | pomdp.Config
    Acts = ppo.Config | a2c.Config | reinforce.Config | r2d2.Config | sac.Config


@overload
def fit(
    config: Speaks,
    data: Any,
    *,
    policy: Any = ...,
    reward: Any = ...,
    out: str | Path | None = ...,
    seed: int = ...,
    resume: bool = ...,
    quiet: bool = ...,
    device: str = ...,
    threads: int = ...,
    checkpoint_every: int = ...,
    checkpoints: int = ...,
    log_every: int = ...,
    track: str = ...,
    **settings: Any,
) -> Policy: ...
@overload
def fit(
    config: Codes,
    data: Any,
    *,
    out: str | Path | None = ...,
    seed: int = ...,
    resume: bool = ...,
    quiet: bool = ...,
    device: str = ...,
    threads: int = ...,
    checkpoint_every: int = ...,
    checkpoints: int = ...,
    log_every: int = ...,
    track: str = ...,
    **settings: Any,
) -> Codebooks: ...
@overload
def fit(
    config: Means,
    data: Any,
    *,
    acts: Any = ...,
    out: str | Path | None = ...,
    seed: int = ...,
    resume: bool = ...,
    quiet: bool = ...,
    device: str = ...,
    threads: int = ...,
    checkpoint_every: int = ...,
    checkpoints: int = ...,
    log_every: int = ...,
    track: str = ...,
    **settings: Any,
) -> ActPolicy: ...
@overload
def fit(
    config: RewardConfig,
    data: Any,
    *,
    policy: Any = ...,
    reward: Any = ...,
    out: str | Path | None = ...,
    seed: int = ...,
    resume: bool = ...,
    quiet: bool = ...,
    device: str = ...,
    threads: int = ...,
    checkpoint_every: int = ...,
    checkpoints: int = ...,
    log_every: int = ...,
    track: str = ...,
    **settings: Any,
) -> Judge: ...
@overload
def fit(
    config: Acts,
    data: Any,
    *,
    policy: Any = ...,
    reward: Any = ...,
    out: str | Path | None = ...,
    seed: int = ...,
    resume: bool = ...,
    quiet: bool = ...,
    device: str = ...,
    threads: int = ...,
    checkpoint_every: int = ...,
    checkpoints: int = ...,
    log_every: int = ...,
    track: str = ...,
    **settings: Any,
) -> Actor: ...
def fit(
    config: Any,
    data: Any,
    *,
    policy: Any = None,
    reward: Any = None,
    out: str | Path | None = None,
    seed: int = 0,
    resume: bool = False,
    quiet: bool = False,
    device: str = "auto",
    threads: int = 1,
    checkpoint_every: int = 100,
    checkpoints: int = 2,
    log_every: int = 10,
    track: Any = "none",
    **settings: Any,
) -> Any:
    """Train an algorithm on data, and return what was trained.

    `config`: an algorithm's settings, as `turnwise.ILQL(tau=0.95)`. `data`: what it learns from, by family:

        BC, MC, ILQL, TurnIQL               logged conversations: `read_logs(...)`, a path, or rows
        Acts, ActBC, ActMC, ActIQL, ActCQL  the same
        LearntPomdp                         the same
        LearntPomdp                         the same, or an environment as for PPO, in which it acts at random
        RewardModel, DPO, KTO, SimPO, ORPO  feedback: `read_feedback(...)`, a path, or rows
        RLOO, GRPO, TokenPPO, ...           prompts: `read_prompts(...)`, a path, rows, or texts
        PPO, A2C, REINFORCE, R2D2, SAC      an environment: a name, a .pomdp file, module:Class, a POMDP, a
                                            Gymnasium environment, or a function that makes one

    `policy`: the policy to begin with, for every language-model algorithm but BC and RewardModel: what `fit`
    returned, a run folder, or any causal language model by folder or name. For agents that act in an
    environment: the agent to begin with, in place of a fresh one. `reward`: who judges replies: a
    reward model, its run folder, any sequence classifier of one label by folder or name, or a function in
    TRL's signature; several in a list, or in a dict with their weights. DPO, KTO, SimPO and ORPO are only
    measured by it. `acts`: codebooks for ActBC, ..., ActCQL and LearntPomdp, themselves or
    their folder; without them they are made of the logs. `out`: the run folder; without it the run
    is a temporary one and nothing is kept. `resume`: go on from the checkpoint in `out`, to the same result,
    or beyond the end of a finished run if `config` is longer now. `quiet`: print nothing. `settings`: further
    fields of the family's settings (turnwise/recipes/settings/train.py): `heldout`, `lora_rank`,
    `max_new_tokens`, `estimate`; for reading data `outcome_column`, `missing_outcome`, `map_role`,
    `skip_bad`, ...; for the model to begin with `model`, `width`, `layers`, ...; for agents `memory`,
    `critic`, `horizon`, `env_kwargs` (arguments of the environment, in a dict), ....

    Returns a `Policy`, `Codebooks` (Acts), an `ActPolicy` (ActBC, ...), a `Judge` (RewardModel) or an `Actor`
    (agents with memory); None on the processes of `torchrun` other than the first. Raises InputError for data
    or settings that cannot work, TypeError for a setting that the algorithm does not have, Interrupted after
    Ctrl-C, once a checkpoint is written.
    """
    algorithm = algorithm_of(config)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "run" if out is None else Path(out)
        run = RunSettings(folder, seed, resume, device, threads, checkpoint_every, checkpoints, log_every)
        given = {"policy": policy, "reward": reward, **settings}
        found = prepare_and_carry_out(algorithm, config, data, given, run, quiet=quiet)
        if found is None or out is not None:
            return found
        kept = {k: v for k, v in found.result.items() if k not in ("run", "policy", "reward", "report")}
        return replace(found, folder=None, result=kept)


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
    strategy = given.get("strategy", "ddp") if algorithm.family == "logs" else None
    auto = "cpu" if algorithm.family in ("acting", "act_agents", "plans", "codebooks") else "auto"
    with machine(run, quiet=quiet, strategy=strategy, auto=auto) as m:
        job = _PREPARE[algorithm.family](algorithm, config, data, dict(given), m)
        if plan is not None:
            return plan(job)
        done = carry_out(job, m)
        return None if done is None else replace(done[0], result=done[1])


def _logs(algorithm: Algorithm, config: Any, data: Any, given: dict[str, Any], m: Machine) -> Job[Policy]:
    start = _start(algorithm, given)
    apart = given.pop("heldout_logs", None)
    settings, reading, ending = (_taken(kind, given) for kind in (LogSettings, LogReading, Ending))
    _expect_nothing(algorithm, given, LogSettings, LogReading, Ending)
    read = read_logs(data, **vars(reading), quiet=m.silent)
    if apart is not None:
        apart = read_logs(apart, **{**vars(reading), "agent_role": read[0].agent_role}, quiet=m.silent)
        settings = replace(settings, heldout_logs=apart.source)
    return logs.prepare(algorithm, config, read, settings, start, ending, m, apart)


def _codebooks(
    algorithm: Algorithm, config: Any, data: Any, given: dict[str, Any], m: Machine
) -> Job[Codebooks]:
    for name in ("policy", "reward"):
        if given.pop(name, None) is not None:
            raise TypeError(f"{algorithm.title} takes no {name}: they are made of logs alone")
    apart = given.pop("heldout_logs", None)
    settings, reading = _taken(ActSettings, given), _taken(LogReading, given)
    _expect_nothing(algorithm, given, ActSettings, LogReading)
    read = read_logs(data, **vars(reading), quiet=m.silent)
    if apart is not None:
        apart = read_logs(apart, **{**vars(reading), "agent_role": read[0].agent_role}, quiet=m.silent)
        settings = replace(settings, heldout_logs=apart.source)
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
    read = read_logs(data, **vars(reading), quiet=m.silent)
    if apart is not None:
        apart = read_logs(apart, **{**vars(reading), "agent_role": read[0].agent_role}, quiet=m.silent)
        settings = replace(settings, heldout_logs=apart.source)
    return act_agents.prepare(algorithm, config, read, settings, memory, acts, ending, m, apart)


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
    read = read_logs(data, **vars(reading), quiet=m.silent)
    if apart is not None:
        apart = read_logs(apart, **{**vars(reading), "agent_role": read[0].agent_role}, quiet=m.silent)
        settings = replace(settings, heldout_logs=apart.source)
    return plans.prepare(algorithm, config, read, settings, acts, policy, ending, m, apart)


def _reward(algorithm: Algorithm, config: Any, data: Any, given: dict[str, Any], m: Machine) -> Job[Judge]:
    start = _start(algorithm, given)
    feedback = _feedback(data, given, m)
    settings, members = _taken(FeedbackSettings, given), _taken(EnsembleSettings, given)
    _expect_nothing(algorithm, given, FeedbackReading, FeedbackSettings, EnsembleSettings)
    return reward.prepare(algorithm, config, feedback(), start, settings, members, m)


def _preferences(
    algorithm: Algorithm, config: Any, data: Any, given: dict[str, Any], m: Machine
) -> Job[Policy]:
    judge = given.pop("reward", None)
    policy = _start(algorithm, given)
    feedback = _feedback(data, given, m)
    settings, sampled = _taken(FeedbackSettings, given), _taken(ReplySettings, given)
    _expect_nothing(algorithm, given, FeedbackReading, FeedbackSettings, ReplySettings)
    return preferences.prepare(algorithm, config, feedback(), policy, judge, settings, sampled, m)


def _feedback(data: Any, given: dict[str, Any], m: Machine) -> Callable[[], FeedbackSet]:
    """What reads the feedback, once all settings are known to be good."""
    kind, reading = given.pop("kind", None), _taken(FeedbackReading, given)
    return lambda: read_feedback(data, kind, **vars(reading), quiet=m.silent)


def _replies(algorithm: Algorithm, config: Any, data: Any, given: dict[str, Any], m: Machine) -> Job[Policy]:
    judge = given.pop("reward", None)
    if judge is None or judge in ((), []):
        raise InputError(f"{algorithm.title} needs a reward; expected a reward model or a function")
    policy = _start(algorithm, given)
    kinds = (FeedbackReading, FeedbackSettings, ReplySettings, RewardShaping)
    reading, settings, sampled, shaping = (_taken(kind, given) for kind in kinds)
    _expect_nothing(algorithm, given, *kinds)
    prompts = replies.find_prompts(data, reading, settings.heldout, quiet=m.silent)
    return replies.prepare(algorithm, config, prompts, policy, judge, settings, sampled, shaping, m)


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
    "codebooks": _codebooks,
    "act_agents": _act_agents,
    "plans": _plans,
    "reward": _reward,
    "preferences": _preferences,
    "replies": _replies,
    "acting": _acting,
}


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
