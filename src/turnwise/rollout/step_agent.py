"""A trained agent with memory, on disk and in action.

    player = load_step_agent("runs/ppo").player()
    action = player.act(observation)            # of the first observation
    action = player.act(observation, reward)    # the reward that came with the observation
    player.reset()                              # a new episode

The player keeps memory, previous action and previous reward.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from turnwise.data.steps import StepInputs
from turnwise.envs.protocol import Discrete, Vector
from turnwise.models.agents.settings import CriticSpec, MemorySpec
from turnwise.models.agents.spec import Kind, Spaces
from turnwise.models.lm.pretrained import share_files
from turnwise.rollout.episodes.bounds import to_bounds
from turnwise.run.files.digests import LISTED, checksums
from turnwise.run.files.whole import whole_folder

SETTINGS = "agent.json"
WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class StepAgent:
    """An agent that acts in steps of an environment: the module that acts, and what it was built from."""

    module: Any
    kind: Kind
    memory: MemorySpec
    critic: CriticSpec
    spaces: Spaces

    def player(self, lanes: int | None = None, *, greedy: bool = False) -> Player:
        """It acts in one episode (`lanes` None) or in so many at a time; `greedy`: the likeliest action."""
        return Player(self, lanes, greedy=greedy)

    def save(self, folder: Path) -> None:
        """Settings as JSON, weights as safetensors; the folder is there whole or not at all."""
        weights = {k: v.detach().cpu().contiguous() for k, v in self.module.state_dict().items()}
        settings = {
            "kind": self.kind,
            "memory": asdict(self.memory),
            "critic": asdict(self.critic),
            "spaces": self.spaces.written(),
        }
        with whole_folder(folder, SETTINGS) as part:
            save_file(weights, part / WEIGHTS)
            share_files(part)
            settings[LISTED] = checksums(part)
            (part / SETTINGS).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


class Player:
    """Acts in one episode, or in N at a time, and remembers."""

    def __init__(self, agent: StepAgent, lanes: int | None = None, *, greedy: bool = False) -> None:
        """`lanes`: episodes at a time; None: one, without an axis for it. `greedy`: the likeliest action."""
        self.module, self.spaces, self.lanes = agent.module, agent.spaces, lanes
        self.choose = self.module.act_greedily if greedy else self.module.act
        self.reset()

    def reset(self, lanes: np.ndarray | None = None) -> None:
        """Begin a new episode, in all lanes or in those of a mask [N]."""
        n = self.lanes or 1
        mask = np.ones(n, bool) if lanes is None else np.asarray(lanes, bool)
        if lanes is None:
            self._memory = self.module.initial_state(n)
            actions = self.spaces.actions
            self._action = (
                np.zeros((n, actions.size), np.float32) if isinstance(actions, Vector) else np.zeros(n, int)
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
