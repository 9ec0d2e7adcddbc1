"""Whatever was trained, from its folder: agents that speak, agents that act in steps, reward models.

`load` looks at what the folder holds. Code that knows it beforehand calls the loader of that kind, which
refuses the other kinds.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from turnwise.envs.gymnasium.translation import Translation
from turnwise.models.agents.settings import CriticSpec, MemorySpec
from turnwise.models.agents.spec import Spaces, agent_of
from turnwise.rollout import step_agent
from turnwise.rollout.step_agent import StepAgent
from turnwise.run.errors import InputError
from turnwise.run.files.digests import expect_unchanged
from turnwise.run.files.lock import expect_ended

# Language models import transformers, which takes seconds; an agent that acts in steps is loaded without it.
if TYPE_CHECKING:
    from turnwise.models.lm.critics import TokenCritic, TurnCritic
    from turnwise.models.lm.lora import Adapter
    from turnwise.rollout.acts.agent import ActAgent
    from turnwise.rollout.agent import Agent
    from turnwise.rollout.partners.fitted import FittedPartner
    from turnwise.rollout.reward_classifier import ClassifierScorer
    from turnwise.rollout.reward_scorer import RewardScorer

SAVED = "turnwise.json"
"""settings beside a language model or a reward model of ours"""
ACTS = "acts.json"
"""settings of an agent of acts, as `rollout/acts/files.py` writes them"""
PARTNER = "partner.json"
"""settings of a partner from logs, as `rollout/partners/fitted.py` writes them"""
Held = Literal["steps", "acts", "partner", "reward", "language"]
WORDS: dict[Held, str] = {
    "steps": "an agent that acts in steps",
    "acts": "an agent of acts",
    "partner": "a partner from logs",
    "reward": "a reward model",
    "language": "a language model",
}


def load(
    path: str | Path, embed: Callable[[str], Any] | None = None
) -> Agent | StepAgent | ActAgent | FittedPartner | RewardScorer | ClassifierScorer:
    """What a finished run trained, from the folder of the run or of the saved model; on the CPU.

    A causal LM or an encoder-decoder by folder or hub name is an `Agent` too. `embed` gives what makes
    vectors of texts, by its name, for an agent of acts that reads by them; None: a model by folder or name.
    InputError if nothing can be loaded.
    """
    held = held_in(saved_folder(path))
    if held == "steps":
        return load_step_agent(path)
    if held == "acts":
        from turnwise.rollout.acts.files import load_act_agent  # scikit-learn, which takes a second

        return load_act_agent(saved_folder(path), embed)
    if held == "partner":
        from turnwise.rollout.partners.fitted import load_fitted

        return load_fitted(saved_folder(path))
    return load_reward(path) if held == "reward" else load_agent(path)


def load_agent(path: str | Path) -> Agent:
    """An agent that speaks: from a run's folder, a saved policy's, or a language model by name or folder."""
    from turnwise.models.lm.pretrained import load_lm
    from turnwise.rollout.agent import SETTINGS, Acting, Agent

    folder = saved_folder(path)
    if (held := held_in(folder)) != "language":
        raise InputError(f"{path}: this is {WORDS[held]}; expected the run of a policy that speaks")
    settings = _settings(folder / SETTINGS)
    expect_unchanged(folder, settings, SETTINGS)
    lm, tokenizer = load_lm(str(folder if folder.exists() else path))
    if not settings:
        return Agent(lm, tokenizer)
    alone = settings["kind"] == "lm"
    critic, adapter = (None, None) if alone else _load_critic(folder / "critic", settings, lm)
    return Agent(lm, tokenizer, critic, Acting(**settings["acting"]), critic_adapter=adapter)


def load_step_agent(path: str | Path) -> StepAgent:
    """An agent that acts in steps, from the folder of its run or what `StepAgent.save` wrote."""
    folder, name = saved_folder(path), step_agent.SETTINGS
    try:
        settings = json.loads((folder / name).read_text(encoding="utf-8"))
        memory, critic = MemorySpec(**settings["memory"]), CriticSpec(**settings["critic"])
        spaces, kind = Spaces.read(settings["spaces"]), settings["kind"]
        translation = Translation.read(settings["translation"])
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise InputError(f"{path}: no {name} that can be read; expected the run of {WORDS['steps']}") from e
    expect_unchanged(folder, settings, name)
    module = agent_of(kind, memory, critic, spaces)
    weights = folder / step_agent.WEIGHTS
    try:
        module.load_state_dict(load_file(weights))
    except (OSError, RuntimeError, SafetensorError) as e:
        raise InputError(f"{weights}: weights do not fit {name}, or are not there") from e
    return StepAgent(module.eval().requires_grad_(False), kind, memory, critic, spaces, translation)


def load_reward(path: str | Path) -> RewardScorer | ClassifierScorer:
    """A reward model: the folder of its run or what `RewardScorer.save` wrote, or anybody's sequence
    classifier of one label, by folder or hub name. InputError for anything else.
    """
    from turnwise.rollout.reward_scorer import RewardScorer

    folder = saved_folder(path)
    held = held_in(folder)
    if held != "reward" and ((folder / SAVED).exists() or held in ("steps", "acts", "partner")):
        raise InputError(f"{path}: this is {WORDS[held]}; expected the run of a reward model")
    expect_unchanged(folder, _settings(folder / SAVED), SAVED)
    parts = _members_of(folder)
    if not parts:
        from turnwise.models.lm.classifier import one_label_classifier
        from turnwise.rollout.reward_classifier import ClassifierScorer

        return ClassifierScorer(*one_label_classifier(str(folder if folder.exists() else path)))
    from turnwise.models.lm.reward_model import RewardEnsemble

    models, tokenizers = zip(*map(_reward_model, parts), strict=True)
    return RewardScorer(models[0] if len(parts) == 1 else RewardEnsemble(models), tokenizers[-1])


def _members_of(folder: Path) -> list[Path]:
    """Folders of what `RewardScorer.save` wrote, with or without the file of settings; none if it did not."""
    count = _settings(folder / SAVED).get("models", len([*folder.glob("member-*")]))
    if count > 1:
        return [folder / f"member-{i}" for i in range(count)]
    from turnwise.models.lm.classifier import READ_AT_STOP
    from turnwise.rollout.reward_scorer import HEADS

    ours = (folder / HEADS).exists() or _settings(folder / "config.json").get(READ_AT_STOP)
    return [folder] if ours else []


def _reward_model(folder: Path) -> tuple[Any, Any]:
    """A model that reads by itself, and its tokenizer; with the classifier's one head if that is all."""
    from turnwise.models.lm.classifier import load_classifier
    from turnwise.models.lm.reward_model import RewardModel
    from turnwise.rollout.reward_scorer import HEADS

    trunk, tokenizer, heads = load_classifier(folder)
    if (folder / HEADS).exists():
        heads = load_file(folder / HEADS)["heads"]
    model = RewardModel(trunk, heads.shape[1], ensemble=len(heads))
    with torch.no_grad():
        model.heads.weight.copy_(heads)
    return model, tokenizer


def saved_folder(path: str | Path) -> Path:
    """The folder of the saved model: that inside a run's folder, or the one that was given."""
    folder = Path(path)
    is_run = (folder / "config.yaml").exists() and not (folder / "config.json").exists()
    if is_run:
        expect_ended(folder)
    for name in ("policy", "reward", "partner"):
        if (folder / name).is_dir():
            return folder / name
    if is_run:
        raise InputError(
            f"{folder}: neither policy/, reward/ nor partner/ is there; expected what the run trained"
        )
    return folder


def held_in(folder: Path) -> Held:
    """What a saved folder holds, by the file of settings in it; a language model needs none."""
    if (folder / step_agent.SETTINGS).exists():
        return "steps"
    if (folder / ACTS).exists():
        return "acts"
    if (folder / PARTNER).exists():
        return "partner"
    settings, config = _settings(folder / SAVED), _settings(folder / "config.json")
    if not config and _settings(folder / "adapter_config.json").get("task_type") == "SEQ_CLS":
        return "reward"
    if settings:
        return "reward" if settings.get("kind") == "reward" else "language"
    kinds = [str(x) for x in config.get("architectures") or []]
    judges = any(x.endswith("ForSequenceClassification") for x in kinds) or (folder / "member-0").is_dir()
    return "reward" if judges else "language"


def _settings(file: Path) -> dict[str, Any]:
    """The settings beside a language model; none if it came from elsewhere."""
    if not file.exists():
        return {}
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as e:
        raise InputError(f"{file}: not readable as JSON; expected the file as it was saved") from e
    if not isinstance(found, dict):
        raise InputError(f"{file}: expected settings by name")
    return found


def _load_critic(
    folder: Path, settings: Mapping[str, Any], lm: Any
) -> tuple[TokenCritic | TurnCritic, Adapter | None]:
    """The critic; and the adapters by which its trunk differs from that of `lm`, if it was saved so."""
    from turnwise.models.lm.critics import TokenCritic, TurnCritic
    from turnwise.models.lm.lora import Adapter
    from turnwise.models.lm.parts import trunk_of, width_of
    from turnwise.models.lm.pretrained import load_trunk
    from turnwise.rollout.agent import ADAPTER_SETTINGS, ADAPTER_WEIGHTS, TRUNK

    adapter, width = None, width_of(lm)
    if settings.get(TRUNK) == "adapted":
        try:
            weights = load_file(folder / ADAPTER_WEIGHTS)
        except (OSError, SafetensorError) as e:
            raise InputError(f"{folder / ADAPTER_WEIGHTS}: expected the adapters of the critic") from e
        adapter = Adapter(_settings(folder / ADAPTER_SETTINGS), weights)
        trunk = trunk_of(adapter.folded_into(lm))
    else:
        trunk = trunk_of(lm) if settings.get(TRUNK) == "policy" else load_trunk(folder)
    if settings["kind"] == "turn_critic":
        critic: TokenCritic | TurnCritic = TurnCritic(trunk, width, ensemble=settings["ensemble"])
    else:
        tokens = lm.get_output_embeddings().weight.detach()
        sizes = {"ensemble": settings["ensemble"], "rank": settings["rank"], "tokens": tokens}
        critic = TokenCritic(trunk, width, lm.config.vocab_size, **sizes)
    # The heads' file holds all but the trunk, whose weights `save_pretrained` wrote beside it.
    heads = load_file(folder / "heads.safetensors")
    missing, unexpected = critic.load_state_dict(heads, strict=False)
    if unexpected or any(not name.startswith("trunk.") for name in missing):
        raise InputError(f"{folder / 'heads.safetensors'}: expected the heads of a {settings['kind']}")
    return critic, adapter
