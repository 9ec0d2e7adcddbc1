"""Who judges replies: reward models, functions, built-in truths; one of them, or several with weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from turnwise.data.feedback import Prompt
from turnwise.envs.dialogue import Message
from turnwise.recipes.tasks import TASKS, gold_of
from turnwise.recipes.trained import Judge
from turnwise.recipes.training.feedback.speakers import Speaker
from turnwise.recipes.training.machine import Machine
from turnwise.rollout.engines.servers.engine import Engine
from turnwise.rollout.load import load_reward
from turnwise.rollout.replies import sample_replies
from turnwise.rollout.reward_classifier import ClassifierScorer
from turnwise.rollout.reward_scorer import RewardScorer
from turnwise.rollout.rewards import (
    ClippedReward,
    FunctionReward,
    LengthReward,
    ModelReward,
    Reward,
    UnfinishedPenalty,
    WeightedSum,
)
from turnwise.run.errors import InputError, SettingError
from turnwise.run.files.digests import digest_of
from turnwise.run.files.modules import function_named
from turnwise.run.rehearsal import at_most

PROBE = (Message("user", "Why?"),)
"""a prompt on which two tokenizers are compared"""
STANDARDISED_ON = 256
"""prompts whose replies put a reward model's rewards at mean 0 and deviation 1"""
_REWARDS = (ClippedReward, FunctionReward, ModelReward, LengthReward, UnfinishedPenalty, WeightedSum)
"""rewards of ours, which take replies; any other function is in TRL's signature"""


@dataclass(frozen=True)
class FoundJudge:
    """One judge, as the run's config records it, and its weight beside others."""

    judge: RewardScorer | ClassifierScorer | Reward
    name: str
    weight: float = 1.0

    @property
    def model(self) -> RewardScorer | ClassifierScorer | None:
        """The reward model, if it is one."""
        return self.judge if isinstance(self.judge, RewardScorer | ClassifierScorer) else None


def find_judges(reward: Any, text: bool = False) -> list[FoundJudge]:
    """All judges that `reward` names; none for None and for nothing in a list.

    `reward`: a reward model (what `fit` or `load` returned, the folder of a run, any sequence classifier of
    one label by folder or hub name), any function in TRL's signature, such a function as `module:function`,
    the built-in task whose gold is known by its name, or a `Reward`. Several: a list of these, each alone, as
    (reward, weight) or as text "reward=weight"; or a dict from reward to weight. A function is given plain
    text if `text`. SettingError for a name or a weight that cannot be, TypeError for anything else.
    """
    if reward is None:
        return []
    if isinstance(reward, Mapping):
        return [_weighted(judge, weight, text) for judge, weight in reward.items()]
    if isinstance(reward, list | tuple) and not _is_pair(reward):
        return [found for one in reward for found in find_judges(one, text)]
    if _is_pair(reward):
        return [_weighted(reward[0], reward[1], text)]
    if isinstance(reward, str) and not Path(reward).exists():
        name, _, weight = reward.rpartition("=")
        if name and _as_number(weight) is not None:
            return [_weighted(name, _as_number(weight), text)]
    return [_weighted(reward, 1.0, text)]


def recorded(judges: Sequence[FoundJudge]) -> str | None:
    """How the run's config records them: `runs/reward`, or `runs/a + 0.5 judges:short`."""
    return " + ".join(j.name if j.weight == 1 else f"{j.weight:g} {j.name}" for j in judges) or None


def content_of(judges: Sequence[FoundJudge]) -> dict[str, str]:
    """What a run's config says of judges that are models, wherever they lie; nothing if none is."""
    if all(j.model is None for j in judges):
        return {}
    each = [j.name if j.model is None else digest_of(j.model.model, j.model.tokenizer) for j in judges]
    return {"reward": digest_of([[j.weight, what] for j, what in zip(judges, each, strict=True)])}


def training_rewards(
    judges: Sequence[FoundJudge],
    doubt: float,
    s: Speaker,
    prompts: Sequence[Prompt],
    most: int,
    m: Machine,
    engine: Engine | None = None,
) -> list[Reward]:
    """What each judge gives in training. `most`: tokens of the longest reply.

    Each reward model is standardised on replies of the policy before training, so that a weight means the
    same for each of them. SettingError for `doubt` where no model has members that could disagree.
    """
    models = [j for j in judges if j.model is not None]
    if doubt and models and all(j.model.members == 1 for j in models if j.model):
        one = f"{models[0].name} is one model, which has no doubt"
        raise SettingError("doubt", doubt, f"0: {one}; an ensemble (ensemble of 2 or more) has")
    few = list(prompts)[: at_most(8, STANDARDISED_ON)] if models else []
    own = sample_replies(s.policy, s.chat, few, group=2, seed=m.seed + 7, max_new_tokens=most, engine=engine)
    found = []
    for j in judges:
        judge: Any = j.judge
        if j.model is not None:
            opinion = _opinion(j.model, doubt if j.model.members > 1 else 0.0, s, m)
            try:
                judge = opinion.standardised_on(own)
            except ValueError as e:
                raise InputError(f"reward {j.name}: {e}") from e
        found.append(judge)
    return found


def measuring_rewards(judges: Sequence[FoundJudge], s: Speaker, m: Machine) -> list[Reward]:
    """What each judge gives where nothing is learnt from it: numbers in its own units."""
    found: list[Any] = [j.judge if j.model is None else _opinion(j.model, 0.0, s, m) for j in judges]
    return found


def combined(rewards: Sequence[Reward], judges: Sequence[FoundJudge]) -> Reward:
    """The weighted sum of what the judges give; one judge of weight 1 is itself."""
    weights = tuple(j.weight for j in judges)
    return rewards[0] if weights == (1.0,) else WeightedSum(tuple(rewards), weights)


def apart(rewards: Sequence[Reward], judges: Sequence[FoundJudge]) -> dict[str, Reward]:
    """What each of several judges gives by itself, as `reward/NAME`; nothing for one, which is the whole."""
    several = zip(judges, rewards, strict=True) if len(judges) > 1 else ()
    return {f"reward/{j.name}": reward for j, reward in several}


def _opinion(model: RewardScorer | ClassifierScorer, doubt: float, s: Speaker, m: Machine) -> ModelReward:
    """A reward model's opinion of the replies of this policy, on this machine's device."""
    model.model.to(m.device)
    if isinstance(model, ClassifierScorer):
        return ModelReward(model.score, model.chat, doubt=doubt)
    # A model that reads with the policy's tokenizer reads the sampled ids themselves, any other the text.
    same = model.tokenizer.get_vocab() == s.tokenizer.get_vocab() and model.chat.stop == s.chat.stop
    same = same and model.context >= s.context and model.chat.opening(PROBE) == s.chat.opening(PROBE)
    return ModelReward(model.score, None if same else model.text, doubt=doubt)


def _is_pair(reward: Any) -> bool:
    """(reward, weight)."""
    return isinstance(reward, tuple) and len(reward) == 2 and isinstance(reward[1], int | float)


def _as_number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _weighted(reward: Any, weight: Any, text: bool) -> FoundJudge:
    judge, name = find_reward(reward, text)
    if (
        isinstance(weight, bool)
        or not isinstance(weight, int | float)
        or not math.isfinite(weight)
        or not weight
    ):
        raise SettingError("reward", f"{name}={weight}", "a finite weight other than 0")
    return FoundJudge(judge, name, float(weight))


def find_reward(reward: Any, text: bool = False) -> tuple[Any, str]:
    """(what judges, how the run's config records it), of one judge."""
    if isinstance(reward, Judge):
        return reward.scorer, "a reward model in memory" if reward.folder is None else str(reward.folder)
    if isinstance(reward, RewardScorer | ClassifierScorer):
        return reward, "a reward model in memory"
    if isinstance(reward, str | Path):
        return _named_reward(str(reward), text), str(reward)
    if not callable(reward):
        raise TypeError(f"reward is {type(reward).__name__}; expected a reward model, a function, or a name")
    if isinstance(reward, _REWARDS):
        return reward, type(reward).__name__
    return FunctionReward(reward, text), f"{reward.__module__}:{getattr(reward, '__qualname__', 'function')}"


def _named_reward(name: str, text: bool) -> Any:
    if name in TASKS and TASKS[name].worth is not None:
        return gold_of(name, ())
    if Path(name).is_dir():
        return load_reward(name)
    if ":" in name:
        return FunctionReward(function_named("reward", name), text)
    if "/" in name and not name.startswith((".", "/", "~")):
        return load_reward(name)
    golden = ", ".join(row.name for row in TASKS.values() if row.worth is not None)
    expected = (
        "the run folder of a reward model (train reward), a sequence classifier of one label by folder or "
        f"hub name, a function as module:function, or {golden}"
    )
    raise SettingError("reward", name, expected)
