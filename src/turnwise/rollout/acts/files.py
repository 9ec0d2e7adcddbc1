"""An agent of acts as a folder: settings as JSON, codebooks, what chooses, the clone if there is one.

A step towards an agent is that agent's folder, and the clones of the logged agent beside it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError

from turnwise.data.acts.files import load_codes, save_codes
from turnwise.data.acts.phrases import PhraseBook
from turnwise.data.acts.spaces import Embedder
from turnwise.rollout.acts.agent import ActAgent
from turnwise.rollout.acts.chooser import Chooser, LoggedActs
from turnwise.rollout.acts.clone import Clone
from turnwise.rollout.acts.imitation.files import load_imitation, save_imitation
from turnwise.rollout.acts.imitation.steps import StepChooser, step_of, towards
from turnwise.rollout.acts.model_voice import ModelVoice
from turnwise.rollout.acts.network import NetworkChooser, load_network
from turnwise.rollout.acts.plan import PlanChooser, load_plan
from turnwise.rollout.acts.voice import LoggedVoice
from turnwise.run.errors import InputError
from turnwise.run.files.whole import whole_folder

SETTINGS = "acts.json"
CODES, CHOOSER, FALLBACK, CLONE = "codes", "chooser", "fallback.npz", "clone"
TOWARDS, BEFORE = "towards", "before"
"""of a step: the agent that it goes to, and the clones of the logged agent that it comes from"""


def save_act_agent(agent: ActAgent, folder: Path) -> None:
    """Write a folder that `load_act_agent` reads, whole or not at all."""
    if isinstance(agent.chooser, StepChooser):
        return _save_step(agent, agent.chooser, folder)
    with whole_folder(folder, SETTINGS) as part:
        save_codes(agent.codes, part / CODES)
        (part / CHOOSER).mkdir()
        settings: dict[str, Any] = {"kind": "acts", "patience": agent.patience}
        settings["chooser"] = _save_chooser(agent.chooser, part / CHOOSER)
        if isinstance(agent.fallback, LoggedActs):
            with (part / FALLBACK).open("wb") as file:
                np.savez_compressed(file, begin=agent.fallback.begin, after=agent.fallback.after)
        clone = agent.clone
        if isinstance(agent.voice, ModelVoice):
            settings["voice"] = {"tries": agent.voice.tries}
            settings["falls_back_on"] = "acts" if clone is None else "clone"
            clone = clone or agent.voice.clone
        if clone is not None:
            clone.agent.save(part / CLONE)
        (part / SETTINGS).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def _save_step(agent: ActAgent, step: StepChooser, folder: Path) -> None:
    with whole_folder(folder, SETTINGS) as part:
        save_act_agent(towards(agent), part / TOWARDS)
        found = []
        for i, clone in enumerate(step.before):
            (part / f"{BEFORE}-{i}").mkdir()
            found.append(_save_chooser(clone, part / f"{BEFORE}-{i}"))
        settings = {"kind": "acts", "step": {"t": step.t, "way": step.way, "before": found}}
        (part / SETTINGS).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def load_act_agent(folder: Path, embed: Callable[[str], Embedder] | None = None) -> ActAgent:
    """What `save_act_agent` wrote; `embed` gives what its codebooks read messages with, by name.

    InputError for anything else.
    """
    try:
        settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        if "step" in settings:
            return _load_step(settings["step"], folder, embed)
        kind, patience = settings["chooser"], int(settings["patience"])
        tries = settings["voice"]["tries"] if "voice" in settings else None
        fallback = None
        if (folder / FALLBACK).is_file():
            with np.load(folder / FALLBACK, allow_pickle=False) as found:
                fallback = LoggedActs(found["begin"], found["after"])
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise InputError(f"{folder}: expected an agent of acts as it was saved; found {e}") from e
    codes = load_codes(folder / CODES, embed=embed or features_by_name)
    clone = None
    if (folder / CLONE).is_dir():
        from turnwise.rollout.load import load_agent  # transformers, which most such agents do without

        clone = Clone(load_agent(folder / CLONE))
    assert isinstance(codes.agent, PhraseBook)
    logged = LoggedVoice.of(codes.agent)
    voice = logged if tries is None or clone is None else ModelVoice(clone, codes.agent, logged, tries)
    chooser = _load_chooser(kind, folder / CHOOSER, codes.acts)
    own = clone if settings.get("falls_back_on", "clone") == "clone" else None
    return ActAgent(codes, chooser, voice, fallback, own, patience)


def _load_step(found: Mapping[str, Any], folder: Path, embed: Callable[[str], Embedder] | None) -> ActAgent:
    agent = load_act_agent(folder / TOWARDS, embed)
    before = [
        _load_chooser(x, folder / f"{BEFORE}-{i}", agent.codes.acts) for i, x in enumerate(found["before"])
    ]
    if found["way"] not in ("mixed", "tilted"):
        raise ValueError(f"way is {found['way']!r}")
    return step_of(agent, tuple(before), float(found["t"]), found["way"])


def features_by_name(name: str) -> Embedder:
    """Features of a language model or an encoder, from its folder, a run, or by its hub name."""
    from turnwise.models.lm.features import load_features  # transformers, which most such agents do without
    from turnwise.rollout.load import WORDS, held_in, saved_folder

    folder = saved_folder(name)
    if (held := held_in(folder)) == "steps":
        raise InputError(f"{name}: this is {WORDS[held]}; expected a language model or an encoder")
    return load_features(folder if folder.exists() else name, quiet=True)


def _save_chooser(chooser: Chooser, folder: Path) -> dict[str, Any]:
    """Write what chooses; what tells `_load_chooser` how to read it."""
    if isinstance(chooser, PlanChooser):
        chooser.save(folder)
        return {"kind": "plan", "copies": chooser.copies}
    if isinstance(chooser, NetworkChooser):
        chooser.save(folder)
        return {"kind": "network"}
    if (found := save_imitation(chooser, folder)) is not None:
        return found
    raise TypeError(f"{type(chooser).__name__} has no files; expected a plan, frequencies or a network")


def _load_chooser(found: Mapping[str, Any], folder: Path, names: tuple[str, ...]) -> Chooser:
    try:
        if found["kind"] == "plan":
            return load_plan(folder, names, int(found["copies"]))
        if found["kind"] == "network":
            return load_network(folder)
        if (clone := load_imitation(found, folder)) is not None:
            return clone
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as e:
        raise InputError(f"{folder}: expected what chooses acts, as it was saved; found {e}") from e
    raise InputError(f"{folder}: expected a plan, frequencies or a network; found {found['kind']!r}")
