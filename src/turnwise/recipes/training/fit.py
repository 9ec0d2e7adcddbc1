"""Train: one function for every algorithm."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from turnwise.recipes.catalogue import algorithm_of
from turnwise.recipes.settings.train import RunSettings
from turnwise.recipes.trained import Actor, ActPolicy, Codebooks, Counterpart, Judge, Policy
from turnwise.recipes.training.families import prepare_and_carry_out

if TYPE_CHECKING:
    from turnwise.algorithms.acting import a2c, ppo, r2d2, reinforce, sac
    from turnwise.algorithms.acts import bc as act_bc
    from turnwise.algorithms.acts import codebooks as act_codebooks
    from turnwise.algorithms.acts import cql as act_cql
    from turnwise.algorithms.acts import gigpo as act_gigpo
    from turnwise.algorithms.acts import iql as act_iql
    from turnwise.algorithms.acts import mc as act_mc
    from turnwise.algorithms.acts import pomdp
    from turnwise.algorithms.acts import ppo as act_ppo
    from turnwise.algorithms.feedback import dpo, kto, orpo, simpo
    from turnwise.algorithms.feedback.reward import Config as RewardConfig
    from turnwise.algorithms.logs import awr, bc, ilql, mc, turn_iql
    from turnwise.algorithms.logs.partner import Config as PartnerConfig
    from turnwise.algorithms.replies import best_of_n, grpo, online_dpo, reply_reinforce, rloo, token_ppo
    from turnwise.algorithms.talk import archer
    from turnwise.algorithms.talk import ppo as talk_ppo
    from turnwise.algorithms.talk import rloo as talk_rloo

    FromLogs = bc.Config | mc.Config | ilql.Config | turn_iql.Config | awr.Config
    FromFeedback = dpo.Config | kto.Config | simpo.Config | orpo.Config
    FromOwnReplies = (
        rloo.Config
        | grpo.Config
        | token_ppo.Config
        | reply_reinforce.Config
        | online_dpo.Config
        | best_of_n.Config
    )
    FromConversations = talk_ppo.Config | talk_rloo.Config | archer.Config
    Speaks = FromLogs | FromFeedback | FromOwnReplies | FromConversations
    Codes = act_codebooks.Config
    Means = act_bc.Config | act_mc.Config | act_iql.Config | act_cql.Config | pomdp.Config
    Talks = act_ppo.Config | act_gigpo.Config
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
    config: PartnerConfig,
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
) -> Counterpart: ...
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
    config: Talks,
    data: Any,
    *,
    policy: Any = ...,
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

        BC, MC, ILQL, TurnIQL, AWR          logged conversations: `read_logs(...)`, a path, or rows
        Partner                             the same
        Acts, ActBC, ActMC, ActIQL, ActCQL  the same
        LearntPomdp                         the same, or an environment as for PPO, in which it acts at random
        ActPPO, ActGiGPO                    whom it talks with: a task or its name, or a plan in learnt models
        TalkPPO, TalkRLOO, ArCHer           whom it talks with: a task, or its name and settings in words
        RewardModel, DPO, KTO, SimPO, ORPO  feedback: `read_feedback(...)`, a path, or rows
        RLOO, GRPO, TokenPPO, ...           prompts: `read_prompts(...)`, a path, rows, or texts
        PPO, A2C, REINFORCE, R2D2, SAC      an environment: a name, a .pomdp file, module:Class, a POMDP, a
                                            Gymnasium environment, or a function that makes one

    `policy`: the policy to begin with, for every language-model algorithm but BC and RewardModel: what `fit`
    returned, a run folder, or any language model (causal, or an encoder-decoder) by folder or name. For
    agents that act in an environment, and for ActPPO: the agent to begin with, in place of a fresh one.
    `reward`: who judges replies: a reward model, its run folder, any sequence classifier of one label by
    folder or name, or a
    function in TRL's signature; several in a list, or in a dict with their weights. DPO, KTO, SimPO and ORPO
    are only measured by it. `acts`: codebooks for ActBC, ..., ActCQL and LearntPomdp, themselves or
    their folder; without them they are made of the logs. `out`: the run folder; without it the run
    is a temporary one and nothing is kept. `resume`: go on from the checkpoint in `out`, to the same result,
    or beyond the end of a finished run if `config` is longer now. `quiet`: print nothing. `checkpoints`: how
    many of them stay, the latest. `track`: "tensorboard" writes the metrics in its format too, into the run
    folder, so that it needs `out`. `settings`: further
    fields of the family's settings (turnwise/recipes/settings/train.py): `heldout`, `lora_rank`,
    `max_new_tokens`, `estimate`; for reading data `outcome_column`, `missing_outcome`, `map_role`,
    `skip_bad`, ...; for the model to begin with `model`, `width`, `layers`, ...; for agents `memory`,
    `critic`, `horizon`, `env_kwargs` (arguments of the environment, in a dict), ....

    Returns a `Policy`, a `Counterpart` (Partner), `Codebooks` (Acts), an `ActPolicy` (ActBC, ...), a `Judge`
    (RewardModel) or an `Actor` (agents with memory); None on the processes of `torchrun` other than the
    first. Raises InputError for data or settings that cannot work, TypeError for a setting that the algorithm
    does not have, Interrupted after Ctrl-C, once a checkpoint is written.
    """
    algorithm = algorithm_of(config)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "run" if out is None else Path(out)
        run = RunSettings(
            folder,
            seed=seed,
            resume=resume,
            device=device,
            threads=threads,
            checkpoint_every=checkpoint_every,
            checkpoints=checkpoints,
            log_every=log_every,
            track=track,
        )
        given = {"policy": policy, "reward": reward, **settings}
        found = prepare_and_carry_out(algorithm, config, data, given, run, quiet=quiet)
        if found is None or out is not None:
            return found
        kept = {k: v for k, v in found.result.items() if k not in ("run", "policy", "reward", "report")}
        return replace(found, folder=None, result=kept)
