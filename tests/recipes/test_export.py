"""Exported agents act as the agents that they were made of."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import turnwise as tw
from turnwise.cli import main
from turnwise.data.steps import StepInputs
from turnwise.envs.protocol import Discrete, Image, MultiDiscrete, Vector
from turnwise.models.agents.settings import CriticSpec, MemorySpec
from turnwise.models.agents.spec import Spaces, agent_of
from turnwise.recipes.export import about, export
from turnwise.rollout.step_agent import Player, StepAgent

SYMBOLS = Spaces(Discrete(5), Discrete(4), None)
VECTORS = Spaces(Vector(3), Vector(2, -2.0, 6.0), None)
SEEN = Spaces(Vector(27, images=(Image(2, (5, 5), True, 0.0, 255.0),)), MultiDiscrete((3, 2)), None)
"""an image beside two numbers, and two symbols at once"""
KINDS = [".pt2"] + [".onnx"] * all(
    importlib.util.find_spec(name) is not None for name in ("onnx", "onnxscript", "onnxruntime")
)


def agent(memory: Any, spaces: Spaces, kind: Any = "actor-critic", **critic: Any) -> StepAgent:
    """One with weights that are not small, so that its memory tells in what it does."""
    torch.manual_seed(3)
    spec, seen = MemorySpec(memory, width=16, layers=1, context=4, heads=2), CriticSpec(**critic)
    module = agent_of(kind, spec, seen, spaces).eval().requires_grad_(False)
    for p in module.parameters():
        torch.nn.init.normal_(p, std=0.3)
    return StepAgent(module, kind, spec, seen, spaces)


def runner(file: Path) -> Any:
    """The program by what reads such files, and nothing of ours."""
    if file.suffix == ".pt2":
        return torch.export.load(file).module()
    import onnxruntime  # type: ignore[import-not-found]

    session = onnxruntime.InferenceSession(str(file))
    names = [port.name for port in session.get_inputs()]

    def run(*given: torch.Tensor) -> list[torch.Tensor]:
        return [
            torch.from_numpy(x)
            for x in session.run(None, dict(zip(names, map(np.asarray, given), strict=True)))
        ]

    return run


@pytest.mark.parametrize("end", KINDS)
@pytest.mark.parametrize(
    ("memory", "spaces", "kind"),
    [
        ("transformer", SYMBOLS, "actor-critic"),
        ("lstm", VECTORS, "actor-critic"),
        ("window", SYMBOLS, "q"),
        ("linear", SYMBOLS, "soft"),
        ("gru", SEEN, "actor-critic"),
        ("gru", VECTORS, "soft"),
    ],
)
def test_twenty_steps_with_episodes_that_begin_in_between(
    memory: Any, spaces: Spaces, kind: Any, end: str, tmp_path: Path
) -> None:
    """Ours is the player that the documentation shows, with its own resets; theirs gets only `start`."""
    saved = agent(memory, spaces, kind)
    found = export(saved, tmp_path / f"agent{end}")
    assert found.difference is not None and found.difference <= 1e-5
    program, player, rng = runner(found.file), Player(saved, 4, greedy=True), np.random.default_rng(0)
    state = torch.zeros(4, found.inputs["memory"][1][1])
    action, start = player._action.copy(), np.ones(4, bool)
    for _ in range(20):
        size = 0 if spaces is SYMBOLS else spaces.observations.size
        seen = rng.normal(size=(4, size)).astype(np.float32) if size else rng.integers(5, size=4)
        rewards = rng.normal(size=4).astype(np.float32)
        inputs = [torch.as_tensor(x) for x in (seen, action, np.where(start, 7.0, rewards), start)]
        inputs[2] = inputs[2].float()  # a reward before an episode began is nobody's business
        parameters, chosen, state = program(*inputs, state)
        taken = player.act(seen, rewards)
        assert np.abs(player._action - chosen.numpy()).max() < 1e-5
        if kind == "actor-critic":
            torch.testing.assert_close(*_log_probabilities(saved, player, parameters), rtol=0, atol=1e-5)
        action, start = chosen.numpy(), rng.random(4) < 0.2
        if spaces is SYMBOLS:
            assert np.array_equal(taken, action)
        player.reset(start)


def _log_probabilities(saved: StepAgent, player: Player, given: torch.Tensor) -> tuple[Any, Any]:
    """Of the greedy action: by the agent's own head, and from what the program gave."""
    actions = torch.as_tensor(player._action)
    if actions.dtype == torch.int64 and actions.ndim > 1:  # two symbols, the first one of three
        both = torch.gather(given[:, :3], 1, actions[:, :1]) + torch.gather(given[:, 3:], 1, actions[:, 1:])
        return saved.module.head.logp(given, actions), both[:, 0]
    if actions.ndim > 1:  # a density of two normals at their means
        at_mean = -(given[:, 2:] + 0.5 * np.log(2 * np.pi)).sum(-1)
        return saved.module.head.logp(given, actions), at_mean
    return given.gather(1, actions[:, None])[:, 0], given.max(-1).values


def test_log_probabilities_are_those_of_acting(tmp_path: Path) -> None:
    """Sampled steps of the agent itself, whose log-probabilities the program gives too."""
    saved = agent("lstm", SYMBOLS, separate=True)  # the critic's own memory stays behind
    program = runner(export(saved, tmp_path / "agent.pt2").file)
    module, rng = saved.module, np.random.default_rng(1)
    mine, theirs = module.initial_state(4), torch.zeros(4, 32)
    action = torch.zeros(4, dtype=torch.int64)
    assert module.state_size == 64
    for step in range(20):
        seen, reward = torch.as_tensor(rng.integers(5, size=4)), torch.as_tensor(rng.normal(size=4)).float()
        start = torch.full((4,), step % 7 == 0)
        if step % 7 == 0:
            mine, action, reward = mine * 0, action * 0, reward * 0
        with torch.no_grad():
            acted = module.act(StepInputs(seen, action, reward, start), mine)
        table, _, theirs = program(seen, action, reward, start, theirs)
        torch.testing.assert_close(
            table.gather(1, acted.actions[:, None])[:, 0], acted.logp, rtol=0, atol=1e-5
        )
        torch.testing.assert_close(table.exp().sum(-1), torch.ones(4))
        action, mine = acted.actions, acted.state


def test_a_run_is_exported_from_the_command_line(tmp_path: Path, capsys: Any) -> None:
    run, file = tmp_path / "run", tmp_path / "new" / "agent.pt2"
    tw.fit(tw.PPO(steps=64, lanes=2, rollout=16), "tiger", width=8, out=run, quiet=True)
    assert main(["export", str(run), str(file), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["inputs"]["observation"] == ["int64", ["N"]]
    assert said["outputs"] == {
        "log_probabilities": ["float32", ["N", 3]],
        "action": ["int64", ["N"]],
        "next_memory": ["float32", ["N", 8]],
    }
    assert about(file)["spaces"]["actions"] == {"Discrete": {"n": 3}}
    for words, says in (
        (["export", str(run), "--out", "x.pt"], "--out x.pt: expected a file that ends in .onnx or .pt2"),
        (["export", str(tmp_path), "--out", "x.pt2"], "expected"),
    ):
        assert main(words) == 2
        assert says in capsys.readouterr().err
    assert not Path("x.pt").exists() and not Path("x.pt2").exists()


@pytest.mark.skipif(".onnx" in KINDS, reason="the packages are installed")
def test_without_the_packages_onnx_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(tw.InputError, match=r"pip install 'turnwise\[export\]'.*ends in \.pt2"):
        export(agent("gru", SYMBOLS), tmp_path / "agent.onnx")
    assert not any(tmp_path.iterdir())
