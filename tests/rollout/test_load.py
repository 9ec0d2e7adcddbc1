"""One door for whatever was trained: what a folder holds decides what comes back."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from turnwise.envs.protocol import Discrete
from turnwise.models.agents.settings import CriticSpec, MemorySpec
from turnwise.models.agents.spec import Spaces, agent_of
from turnwise.models.lm.parts import trunk_of
from turnwise.models.lm.reward_model import RewardModel
from turnwise.rollout.agent import Agent
from turnwise.rollout.load import load, load_agent, load_reward, load_step_agent
from turnwise.rollout.reward_scorer import RewardScorer
from turnwise.rollout.step_agent import StepAgent
from turnwise.run.errors import InputError


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny: Callable[..., Any], chat: Any) -> dict[str, Path]:
    """The run of each kind of model, as its folder."""
    folders = {kind: tmp_path_factory.mktemp(kind) for kind in ("speaks", "steps", "judges")}
    for folder in folders.values():
        (folder / "config.yaml").write_text("algorithm: any\n")
        (folder / "result.json").write_text("{}\n")
    Agent(tiny(), chat.tokenizer).save(folders["speaks"] / "policy")
    memory, critic, spaces = MemorySpec(width=8), CriticSpec(), Spaces(Discrete(3), Discrete(2), None)
    module = agent_of("q", memory, critic, spaces)
    StepAgent(module, "q", memory, critic, spaces).save(folders["steps"] / "policy")
    judge = RewardModel(trunk_of(tiny().float()), 32)
    RewardScorer(judge, chat.tokenizer).save(folders["judges"] / "reward")
    return folders


@pytest.mark.parametrize(
    ("kind", "inside", "expected"),
    [("speaks", "policy", Agent), ("steps", "policy", StepAgent), ("judges", "reward", RewardScorer)],
)
def test_the_folder_decides_what_comes_back(
    kind: str, inside: str, expected: type, runs: dict[str, Path]
) -> None:
    """From the folder of the run and from the folder of the model in it, by path or by text."""
    assert isinstance(load(runs[kind]), expected)
    assert isinstance(load(str(runs[kind] / inside)), expected)


@pytest.mark.parametrize(
    ("loader", "kind", "message"),
    [
        (
            load_agent,
            "steps",
            "this is an agent that acts in steps; expected the run of a policy that speaks",
        ),
        (load_agent, "judges", "this is a reward model; expected the run of a policy that speaks"),
        (load_step_agent, "speaks", "no agent.json that can be read; expected the run of an agent that acts"),
        (load_reward, "steps", "expected the run of a reward model"),
    ],
)
def test_a_loader_refuses_other_kinds(
    loader: Callable[[Path], Any], kind: str, message: str, runs: dict[str, Path]
) -> None:
    with pytest.raises(InputError, match=message):
        loader(runs[kind])


def test_a_run_that_is_not_finished_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("algorithm: bc\n")
    with pytest.raises(InputError, match="this run has not ended; resume it, with the settings"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("kind", "file"),
    [
        ("steps", "policy/model.safetensors"),
        ("speaks", "policy/model.safetensors"),
        ("speaks", "policy/pytorch_model.bin"),
        ("judges", "reward/heads.safetensors"),
    ],
)
def test_a_pickle_in_a_saved_folder_is_not_executed(
    kind: str, file: str, runs: dict[str, Path], tmp_path: Path
) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return os.mkdir, (str(tmp_path / "executed"),)

    folder = tmp_path / "run"
    shutil.copytree(runs[kind], folder)
    for weights in (folder / file).parent.glob("*.safetensors"):
        weights.unlink()
    torch.save({"evil": Evil()}, folder / file)
    with pytest.raises(InputError):
        load(folder)
    assert not (tmp_path / "executed").exists()
