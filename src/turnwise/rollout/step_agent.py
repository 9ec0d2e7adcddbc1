"""A trained agent with memory, on disk and in action.

    player = load_step_agent("runs/ppo").player()
    action = player.act(observation)            # of the first observation
    action = player.act(observation, reward)    # the reward that came with the observation
    player.reset()                              # a new episode

The player keeps memory, previous action and previous reward. It reads observations and gives actions as the
environment has them (a Dict, a Box with its bounds, a Discrete that starts at 1), by the translation of the
lanes that the agent was trained in.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from turnwise.data.steps import StepInputs, as_tensor
from turnwise.envs.gymnasium.translation import Translation
from turnwise.envs.protocol import no_actions
from turnwise.models.agents.settings import CriticSpec, MemorySpec
from turnwise.models.agents.spec import Kind, Spaces
from turnwise.models.lm.pretrained import share_files
from turnwise.rollout.episodes.bounds import to_environment
from turnwise.run.errors import InputError
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
    translation: Translation | None = None
    """of the environment that it was made for; None: an environment of ours with just these spaces"""

    @property
    def speaks(self) -> Translation:
        """How the environment speaks."""
        return self.translation or Translation.of_ours(self.spaces.observations, self.spaces.actions)

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
            "translation": self.speaks.written(),
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
        self.translation = agent.speaks
        self.choose = self.module.act_greedily if greedy else self.module.act
        self.reset()

    def reset(self, lanes: np.ndarray | None = None) -> None:
        """Begin a new episode, in all lanes or in those of a mask [N]."""
        n = self.lanes or 1
        mask = np.ones(n, bool) if lanes is None else np.asarray(lanes, bool)
        if lanes is None:
            self._memory = self.module.initial_state(n)
            self._action = no_actions(self.spaces.actions, n)
            self._start = np.ones(n, bool)
        self._memory[torch.from_numpy(mask)] = 0.0
        self._start[mask] = True
        self._action[mask] = 0

    def act(self, observation: Any, reward: Any = 0.0) -> Any:
        """The next action, as the environment takes it, after one more observation and its reward.

        Of several lanes both are batches, as a vector environment of Gymnasium has them. InputError for an
        observation that is not of the environment's space, and for a reward that is no finite number.
        """
        n = self.lanes or 1
        read = self.translation.observations
        seen = read.read_one(observation) if self.lanes is None else read.read_batch(observation, n)
        rewards = np.where(self._start, 0.0, np.asarray(reward, np.float32).reshape(-1))
        if not np.isfinite(rewards).all():
            raise InputError(f"the reward is {reward}; expected finite numbers")
        inputs = StepInputs(
            as_tensor(seen, torch.float32),
            as_tensor(self._action, torch.float32),
            torch.as_tensor(rewards, dtype=torch.float32),
            torch.as_tensor(self._start.copy()),
        )
        with torch.no_grad():
            actions, _, self._memory = self.choose(inputs, self._memory)
        self._action, self._start = actions.numpy(), np.zeros(n, bool)
        given = to_environment(self._action, self.spaces.actions)
        actions = self.translation.actions
        return actions.write(given) if self.lanes is not None else actions.write_one(given[0])
