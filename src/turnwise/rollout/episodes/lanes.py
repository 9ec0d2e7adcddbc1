"""Lanes of environments: N episodes under way, each with its own memory, begun anew as soon as it ends.

What is collected are rows: episodes, or segments of them if a collection begins or ends in mid-episode. A
segment carries the memory *before* its first observation, so that training reads it from where acting stood.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from turnwise.data.episode import Episode
from turnwise.data.steps import StepInputs, as_tensor
from turnwise.envs.protocol import LaneEnv, NotReproduced, Resumable, no_actions
from turnwise.rollout.episodes.bounds import to_environment
from turnwise.rollout.episodes.given import expect_first, expect_step
from turnwise.rollout.episodes.track import Before, Track, rows_of, segment


class Actor(Protocol):
    """What lanes need of an agent."""

    def act(self, inputs: StepInputs, state: Tensor) -> Any:
        """(actions, log-probabilities [N], memory [N, K]) after one more observation in each lane."""
        ...

    def initial_state(self, lanes: int) -> Tensor:
        """[N, K], the memory before anything was seen."""
        ...


class FinishedEpisodes(NamedTuple):
    """Episodes that ended, or were cut by the environment, since the last call."""

    returns: np.ndarray
    """[n], undiscounted"""
    discounted: np.ndarray
    """[n], from the first step on"""
    lengths: np.ndarray
    """[n], steps"""


@dataclass
class _Now:
    """Where N lanes stand between two steps; arrays [N, ...]."""

    observations: np.ndarray
    start: np.ndarray
    """True where the observation is the first of an episode"""
    idle: np.ndarray
    """True where the next step only begins an episode anew, and ignores the action"""
    previous_action: np.ndarray
    previous_reward: np.ndarray
    memory: Tensor
    ages: np.ndarray
    """steps that each episode has had"""
    returns: np.ndarray
    """rewards of each episode so far, undiscounted"""
    discounted: np.ndarray


class StepLanes:
    """N lanes of one environment. Everything that happens follows from `rng` and torch's global generator."""

    def __init__(
        self, env: LaneEnv, lanes: int, rng: np.random.Generator, *, gamma: float = 1.0, device: str = "cpu"
    ) -> None:
        """`gamma` serves only the discounted returns that are reported of finished episodes."""
        self.env, self.lanes, self.rng, self.gamma, self.device = env, lanes, rng, gamma, device
        self._now: _Now | None = None
        self._finished: list[tuple[float, float, int]] = []
        self.changes = 0
        """Collections so far, without those that failed."""

    @property
    def under_way(self) -> bool:
        """Whether episodes are; if not, the next collection begins all of them."""
        return self._now is not None

    def collect(self, agent: Actor, steps: int) -> list[Episode]:
        """Act for `steps` steps in each lane; the rows of that time, by lane and then by time.

        InputError if the environment gives what it did not promise.
        """
        with self._whole():
            return self._collect(agent, steps)

    def _collect(self, agent: Actor, steps: int) -> list[Episode]:
        now = self._now if self._now is not None else self._begin(agent)
        memory = now.memory.cpu().numpy().copy() if now.memory.shape[1] else None
        # Actions and rewards are replaced at each step; ages are counted in place.
        before = Before(now.ages.copy(), now.previous_action, now.previous_reward, memory)
        track = self._room(now, steps)
        with torch.inference_mode():
            for t in range(steps):
                self._step(agent, now, track, t)
        return [row for lane in range(self.lanes) for row in rows_of(track, lane, before)]

    def episodes(self, agent: Actor, longest: int) -> list[Episode]:
        """Begin anew, and act until each lane has had one episode, cut after `longest` steps.

        One episode a lane, whatever its length: a fixed number of steps would favour short ones. InputError
        if the environment gives what it did not promise.
        """
        with self._whole():
            return self._episodes(agent, longest)

    @contextlib.contextmanager
    def _whole(self) -> Iterator[None]:
        """A collection that fails has not been: lanes begin anew after it, from the random numbers before it.

        The environment may have stopped anywhere, so that the episodes under way are lost.
        """
        rng, finished = self.rng.bit_generator.state, [*self._finished]
        try:
            yield
        except Exception:
            self._now, self._finished = None, finished
            self.rng.bit_generator.state = rng
            raise
        self.changes += 1

    def _episodes(self, agent: Actor, longest: int) -> list[Episode]:
        now = self._begin(agent)
        track = self._room(now, longest)
        over = np.zeros(self.lanes, bool)
        finished_before, taken = self._finished, longest
        self._finished = []
        with torch.inference_mode():
            for t in range(longest):
                self._step(agent, now, track, t)
                over |= track.ended[t]
                if over.all():
                    taken = t + 1
                    break
        rows = []
        for lane in range(self.lanes):
            ended = track.ended[:taken, lane]
            stop = int(np.argmax(ended)) + 1 if ended.any() else taken
            rows.append(segment(track, lane, 0, stop))
        # `_step` also counted the later episodes of lanes that ended early: only a lane's first one counts.
        discounts = self.gamma ** np.arange(taken)
        self._finished = finished_before + [
            (float(e.rewards.sum()), float(e.rewards @ discounts[: len(e)]), len(e)) for e in rows
        ]
        self._now = None
        return rows

    def finished(self) -> FinishedEpisodes:
        """Episodes that ended since the last call."""
        finished, self._finished = self._finished, []
        returns, discounted, lengths = zip(*finished, strict=True) if finished else ((), (), ())
        return FinishedEpisodes(np.array(returns), np.array(discounted), np.array(lengths, np.int64))

    def state(self) -> dict[str, Any]:
        """All that a collection depends on, in arrays and numbers, for a checkpoint.

        Of an environment that cannot say where it stands (`turnwise.envs.protocol.Resumable`) the episodes
        under way are left out: from such a checkpoint they begin anew.
        """
        env, now = self.env, self._now
        standing = env.state() if now is not None and isinstance(env, Resumable) and env.resumes else None
        if standing is None:
            now = None
        return {
            "rng": self.rng.bit_generator.state,
            "env": standing,
            "now": None if now is None else {k: _copied(v) for k, v in vars(now).items()},
            "finished": np.array(self._finished, np.float64).reshape(-1, 3),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from `state`. If the environment cannot be brought to where it stood, it begins anew."""
        finished = state["finished"].tolist()
        self._finished = [(r, discounted, int(length)) for r, discounted, length in finished]
        self._now = None
        if state["now"] is not None:
            try:
                self.env.load(state["env"], self.rng)  # type: ignore[attr-defined]
            except NotReproduced as e:
                warnings.warn(
                    f"episodes under way begin anew, so this run is not the same to the bit: {e}",
                    RuntimeWarning,
                    stacklevel=2,
                )
            else:
                now = {k: _copied(v) for k, v in state["now"].items()}
                self._now = _Now(**now | {"memory": now["memory"].to(self.device)})
        # In place: the environment draws from the very same generator.
        self.rng.bit_generator.state = state["rng"]

    def _begin(self, agent: Actor) -> _Now:
        """A new episode in every lane."""
        n = self.lanes
        self._now = _Now(
            observations=expect_first(self.env.reset(self.rng, n), self.env.observation_space, np.arange(n)),
            start=np.ones(n, bool),
            idle=np.zeros(n, bool),
            previous_action=no_actions(self.env.action_space, n),
            previous_reward=np.zeros(n),
            memory=agent.initial_state(n),
            ages=np.zeros(n, np.int64),
            returns=np.zeros(n),
            discounted=np.zeros(n),
        )
        return self._now

    def _room(self, now: _Now, steps: int) -> Track:
        return Track.empty(steps, now.observations, now.previous_action, self.env.states)

    def _step(self, agent: Actor, now: _Now, track: Track, t: int) -> None:
        """One step of every lane: act, record what followed, and begin anew in lanes that ended."""
        env = self.env
        chosen, logp, memory = agent.act(self._inputs(now), now.memory)
        actions = chosen.cpu().numpy()
        track.observations[t], track.actions[t] = now.observations, actions
        track.logp[t], track.valid[t] = logp.cpu().numpy(), ~now.idle
        if track.states is not None:
            track.states[t] = env.states
        step = env.step(to_environment(actions, env.action_space))
        step = expect_step(step, now.observations, now.idle, now.ages, env.observation_space)
        if track.next_states is not None:  # before a reset changes them: the states that were reached
            track.next_states[t] = env.states
        track.next_observations[t], track.rewards[t] = step.observations, step.rewards
        # An idle lane takes no step of an episode, so nothing can end in it.
        track.terminated[t] = step.terminated & ~now.idle
        track.truncated[t] = step.truncated & ~now.idle
        ended = track.terminated[t] | track.truncated[t]
        now.returns += step.rewards
        now.discounted += self.gamma**now.ages * step.rewards
        now.ages += 1
        for lane in np.flatnonzero(ended):
            self._finished.append(
                (float(now.returns[lane]), float(now.discounted[lane]), int(now.ages[lane]))
            )
        now.memory, now.observations = memory, step.observations
        now.previous_action, now.previous_reward = actions, step.rewards
        self._begin_anew(now, ended)

    def _begin_anew(self, now: _Now, ended: np.ndarray) -> None:
        """Lanes whose next observation is the first of an episode forget the one that ended."""
        if self.env.autoresets:
            # The observation here is the last one of the old episode, and the next step, an idle one, gives
            # the first of the new: so lanes that were idle just now have it already.
            fresh, now.idle = now.idle, ended
        else:
            fresh = ended
            if ended.any():
                now.observations = now.observations.copy()
                first = self.env.reset_lanes(ended)
                now.observations[ended] = expect_first(
                    first, self.env.observation_space, np.flatnonzero(ended)
                )
        now.start = fresh
        if not fresh.any():
            return
        # The state before anything was seen is zeros (models/memory/base.py).
        now.memory = now.memory.masked_fill(torch.from_numpy(fresh).to(self.device).unsqueeze(-1), 0.0)
        now.previous_action = now.previous_action.copy()
        now.previous_action[fresh] = 0
        now.previous_reward = np.where(fresh, 0.0, now.previous_reward)
        for counter in (now.ages, now.returns, now.discounted):
            counter[fresh] = 0

    def _inputs(self, now: _Now) -> StepInputs:
        dtype = now.memory.dtype
        inputs = StepInputs(
            as_tensor(now.observations, dtype),
            as_tensor(now.previous_action, dtype),
            torch.from_numpy(now.previous_reward).to(dtype),
            torch.from_numpy(now.start),
        )
        return inputs if self.device == "cpu" else StepInputs(*(x.to(self.device) for x in inputs))


def _copied(x: Any) -> Any:
    return x.copy() if isinstance(x, np.ndarray) else x.clone()


def episode_metrics(lanes: StepLanes) -> dict[str, float]:
    """What is logged about the episodes that ended since the last call: means, and their number.

    Empty if none ended. `turnwise.run.metrics.EPISODES` says what each is.
    """
    done = lanes.finished()
    if not len(done.returns):
        return {}
    return {
        "episode_return": float(done.returns.mean()),
        "discounted_return": float(done.discounted.mean()),
        "episode_length": float(done.lengths.mean()),
        "episodes": float(len(done.returns)),
    }
