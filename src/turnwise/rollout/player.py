"""A trained agent with memory, on disk and in action.

    player = load_player("runs/ppo")
    player.reset()
    action = player.act(observation, reward)    # the reward that came with the observation; none at first

The player keeps memory, previous action and previous reward; `reset` begins a new episode.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from turnwise.data.steps import StepInputs
from turnwise.envs.protocol import Discrete, Vector
from turnwise.models.agents.settings import CriticSpec, MemorySpec
from turnwise.models.agents.spec import Kind, Spaces, agent_of
from turnwise.models.lm.pretrained import share_files
from turnwise.rollout.episodes import to_bounds
from turnwise.run.errors import InputError

SETTINGS = "agent.json"
WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class Saved:
    """A trained agent: the module that acts, and what it was built of."""

    agent: Any
    kind: Kind
    memory: MemorySpec
    critic: CriticSpec
    spaces: Spaces

    def save(self, folder: Path) -> None:
        """Settings as JSON, weights as safetensors."""
        folder.mkdir(parents=True, exist_ok=True)
        weights = {k: v.detach().cpu().contiguous() for k, v in self.agent.state_dict().items()}
        part = folder / (WEIGHTS + ".part")
        save_file(weights, part)
        share_files(folder)
        part.replace(folder / WEIGHTS)
        settings = {
            "kind": self.kind,
            "memory": asdict(self.memory),
            "critic": asdict(self.critic),
            "spaces": self.spaces.written(),
        }
        (folder / SETTINGS).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def load_saved(folder: str | Path) -> Saved:
    """What `save` wrote, from its folder or that of its run; ready to act, on the CPU."""
    place = Path(folder)
    place = place / "policy" if (place / "policy").is_dir() else place
    try:
        settings = json.loads((place / SETTINGS).read_text(encoding="utf-8"))
        memory, critic = MemorySpec(**settings["memory"]), CriticSpec(**settings["critic"])
        spaces, kind = Spaces.read(settings["spaces"]), settings["kind"]
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise InputError(
            f"{folder}: no {SETTINGS} that can be read; expected the run of an agent with memory"
        ) from e
    agent = agent_of(kind, memory, critic, spaces)
    try:
        agent.load_state_dict(load_file(place / WEIGHTS))
    except (OSError, RuntimeError, SafetensorError) as e:
        raise InputError(f"{place / WEIGHTS}: weights do not fit {SETTINGS}, or are not there") from e
    return Saved(agent.eval().requires_grad_(False), kind, memory, critic, spaces)


class Player:
    """Acts in one episode, or in N at a time, and remembers."""

    def __init__(self, saved: Saved, lanes: int | None = None, *, greedy: bool = False) -> None:
        """`lanes`: episodes at a time; None: one, without an axis for it. `greedy`: the best action."""
        self.agent, self.spaces, self.lanes = saved.agent, saved.spaces, lanes
        self.choose = self.agent.best if greedy else self.agent.act
        self.reset()

    def reset(self, lanes: np.ndarray | None = None) -> None:
        """Begin a new episode, in all lanes or in those of a mask [N]."""
        n = self.lanes or 1
        mask = np.ones(n, bool) if lanes is None else np.asarray(lanes, bool)
        if lanes is None:
            self._memory = self.agent.nothing(n)
            size = self.spaces.actions
            self._action = (
                np.zeros((n, size.size), np.float32) if isinstance(size, Vector) else np.zeros(n, int)
            )
            self._start = np.ones(n, bool)
        self._memory[torch.from_numpy(mask)] = 0.0
        self._start[mask] = True
        self._action[mask] = 0

    def act(self, observation: Any, reward: Any = 0.0) -> Any:
        """The next action (an int, or a vector within the bounds), after one more observation and its reward.

        What the environment shows as a Dict or the like: flattened, as `gymnasium.spaces.flatten` does it.
        """
        n = self.lanes or 1
        space = self.spaces.observations
        if isinstance(space, Discrete):
            seen = torch.as_tensor(np.asarray(observation, np.int64).reshape(n))
            if not bool(((seen >= 0) & (seen < space.n)).all()):
                raise ValueError(f"observation {observation}; expected a symbol from 0 to {space.n - 1}")
        else:
            seen = torch.as_tensor(np.asarray(observation, np.float32).reshape(n, -1))
            if seen.shape[1] != space.size:
                raise ValueError(f"an observation of {seen.shape[1]} numbers; expected {space.size}")
        rewards = np.where(self._start, 0.0, np.asarray(reward, np.float32).reshape(-1))
        inputs = StepInputs(
            seen,
            torch.as_tensor(self._action),
            torch.as_tensor(rewards, dtype=torch.float32),
            torch.as_tensor(self._start.copy()),
        )
        with torch.no_grad():
            actions, _, self._memory = self.choose(inputs, self._memory)
        self._action, self._start = actions.numpy(), np.zeros(n, bool)
        given = self._given(self._action)
        if self.lanes is not None:
            return given
        return int(given[0]) if given.ndim == 1 else given[0]

    def _given(self, actions: np.ndarray) -> np.ndarray:
        """Within the bounds of the environment."""
        space = self.spaces.actions
        return to_bounds(actions, space) if isinstance(space, Vector) else actions.copy()


def load_player(folder: str | Path, lanes: int | None = None, *, greedy: bool = False) -> Player:
    """A player of a run's trained agent."""
    return Player(load_saved(folder), lanes, greedy=greedy)
