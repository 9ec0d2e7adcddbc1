"""A Gymnasium environment that is played in text, as a dialogue task: what is observed is what is said.

    tw.evaluate(policy, GymnasiumTask(WordEnv))
    turnwise evaluate runs/bc --task turnwise.envs.gymnasium.text:GymnasiumTask --task-settings env=my:WordEnv

Each lane has an environment of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium
from gymnasium import spaces

from turnwise.envs.dialogue import Message, Response
from turnwise.run.errors import SettingError
from turnwise.run.files.modules import function_named

Make = Callable[..., gymnasium.Env[Any, Any]]


class GymnasiumTask:
    """An environment with Text spaces as a partner: a `DialogueTask`.

    One environment is made for each lane, and reset with the seed of each conversation. Rewards,
    terminations and truncations are the environment's own, and so is `info`: "success" and "measures" in the
    last one are counted, and "hidden" in it, a mapping, is the hidden state.
    """

    name = "gymnasium"

    def __init__(self, env: str | Make, turns: int | None = None, penalty: float = 0.0) -> None:
        """`env`: an id of Gymnasium, `module:Class`, or what makes the environment.

        `turns`: messages of the agent after which a conversation is cut; none: the environment's own limit.
        `penalty`: what a reply costs that the space of actions cannot hold. Its characters that the space
        does not have, and those beyond its length, are left out first; if it is too short then, the
        environment does not hear it, and its last words stand again. SettingError for an environment whose
        spaces are not Text.
        """
        if turns is not None and (isinstance(turns, bool) or not isinstance(turns, int) or turns < 1):
            raise SettingError("turns", turns, "1 or more")
        self.turns, self.penalty = turns, penalty
        self._env = env
        self._make = _maker(env)
        self._envs: dict[int, gymnasium.Env[Any, Any]] = {}
        self._said: dict[int, str] = {}
        self._info: dict[int, Mapping[str, Any]] = {}
        self._turn: dict[int, int] = {}
        self._actions = self._checked(self._new(0)).action_space

    @property
    def settings(self) -> dict[str, Any]:
        """What was given, as far as words can say it."""
        own: dict[str, Any] = {"turns": self.turns} if self.turns is not None else {}
        own |= {"penalty": self.penalty} if self.penalty else {}
        return own | ({"env": self._env} if isinstance(self._env, str) else {})

    def reset(self, lanes: Sequence[int], seeds: Sequence[int]) -> list[tuple[Message, ...]]:
        """Begin anew in each lane; the first observation opens the conversation."""
        openings = []
        for lane, seed in zip(lanes, seeds, strict=True):
            env = self._envs[lane] if lane in self._envs else self._new(lane)
            observation, self._info[lane] = env.reset(seed=seed)
            self._turn[lane] = 0
            openings.append((self._message(lane, observation),))
        return openings

    def step(self, lanes: Sequence[int], replies: Sequence[str]) -> list[Response]:
        """Each reply is the action of its lane's environment."""
        return [self._step(lane, reply) for lane, reply in zip(lanes, replies, strict=True)]

    def hidden(self, lane: int) -> Mapping[str, Any]:
        """What the environment's `info` calls hidden; nothing if it calls nothing so."""
        found = self._info[lane].get("hidden", {})
        return found if isinstance(found, Mapping) else {"hidden": found}

    def _step(self, lane: int, reply: str) -> Response:
        self._turn[lane] += 1
        cut = self._turn[lane] == self.turns
        action = self._within(reply)
        if action is None:
            return Response((Message("user", self._said[lane]),), -self.penalty, truncated=cut)
        observation, reward, terminated, truncated, info = self._envs[lane].step(action)
        self._info[lane] = info
        return Response(
            (self._message(lane, observation),),
            float(reward),
            terminated=bool(terminated),
            truncated=not terminated and (bool(truncated) or cut),
            info=info,
        )

    def _within(self, reply: str) -> str | None:
        """The reply as the space of actions has it; None if too little of it is left."""
        space = self._actions
        assert isinstance(space, spaces.Text)
        kept = "".join(c for c in reply if c in space.character_set)[: space.max_length]
        return kept if len(kept) >= space.min_length else None

    def _message(self, lane: int, observation: Any) -> Message:
        if not isinstance(observation, str):
            found = f"{type(observation).__name__} in lane {lane}"
            raise SettingError("env", self._called, f"observations that are text; found {found}")
        self._said[lane] = observation
        return Message("user", observation)

    def _new(self, lane: int) -> gymnasium.Env[Any, Any]:
        self._envs[lane] = self._make()
        return self._envs[lane]

    @property
    def _called(self) -> str:
        return self._env if isinstance(self._env, str) else getattr(self._env, "__name__", repr(self._env))

    def _checked(self, env: gymnasium.Env[Any, Any]) -> gymnasium.Env[Any, Any]:
        for kind, space in (("actions", env.action_space), ("observations", env.observation_space)):
            if not isinstance(space, spaces.Text):
                expected = f"an environment whose {kind} are Text; found {type(space).__name__}"
                raise SettingError("env", self._called, expected)
        return env


def _maker(env: str | Make) -> Make:
    if not isinstance(env, str):
        return env
    if ":" in env:
        return function_named("env", env)

    def make() -> gymnasium.Env[Any, Any]:
        try:
            return gymnasium.make(env)
        except gymnasium.error.Error as e:
            raise SettingError("env", env, "an id of Gymnasium, or module:Class") from e

    return make
