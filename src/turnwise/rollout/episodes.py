"""Lanes of environments: N episodes under way, each with a memory of its own, begun anew as soon as it ends.

What is collected are rows: episodes, or segments of them where a collection begins or ends in mid-episode. A
segment carries the memory *before* its first observation, so that training reads it from where acting stood.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from turnwise.data.episode import Episode
from turnwise.data.steps import StepInputs
from turnwise.envs.protocol import LaneEnv, Vector


class Acts(Protocol):
    """What lanes need of an agent."""

    def act(self, inputs: StepInputs, state: Tensor) -> Any:
        """(actions, log-probabilities [N], memory [N, K]) after one more observation in each lane."""
        ...

    def initial_state(self, lanes: int) -> Tensor:
        """[N, K], the memory of nothing."""
        ...


class Finished(NamedTuple):
    """Episodes that ended (or were cut by the environment) since last asked."""

    returns: np.ndarray
    """[n], undiscounted"""
    discounted: np.ndarray
    """[n], from the first step on"""
    lengths: np.ndarray
    """[n], steps"""


@dataclass
class _Track:
    """Arrays [steps, N, ...] of one collection; `valid` is False where a lane only began anew."""

    observations: np.ndarray
    led_to: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    valid: np.ndarray
    logp: np.ndarray
    states: np.ndarray | None
    states_after: np.ndarray | None


class StepLanes:
    """N lanes of one environment. Everything that happens follows from `rng` and torch's global generator."""

    def __init__(
        self, env: LaneEnv, lanes: int, rng: np.random.Generator, *, gamma: float = 1.0, device: str = "cpu"
    ) -> None:
        """`gamma` only enters the discounted returns of `finished`; nothing is learnt from it here."""
        self.env, self.lanes, self.rng, self.gamma, self.device = env, lanes, rng, gamma, device
        self._began = False
        self._finished: list[tuple[float, float, int]] = []

    def collect(self, agent: Acts, steps: int) -> list[Episode]:
        """Act for `steps` steps in each lane; the rows of that time, by lane and then by time."""
        if not self._began:
            self._begin(agent)
        ages, memory = self._ages.copy(), self._memory.clone()
        before = self._previous_action.copy(), self._previous_reward.copy()
        track = self._room(steps)
        with torch.inference_mode():
            for t in range(steps):
                self._step(agent, track, t)
        memories = memory.cpu().numpy() if memory.shape[1] else None
        rows = []
        for lane in range(self.lanes):
            rows += _rows(track, lane, int(ages[lane]), (before[0][lane], before[1][lane]), memories)
        return rows

    def episodes(self, agent: Acts, longest: int) -> list[Episode]:
        """Begin anew, and act until each lane has had one episode, cut after `longest` steps.

        One episode a lane, whatever its length: a fixed number of steps would favour short ones.
        """
        self._begin(agent)
        track = self._room(longest)
        over = np.zeros(self.lanes, bool)
        earlier, self._finished = self._finished, []
        taken = longest
        with torch.inference_mode():
            for t in range(longest):
                self._step(agent, track, t)
                over |= track.terminated[t] | track.truncated[t]
                if over.all():
                    taken = t + 1
                    break
        rows = []
        for lane in range(self.lanes):
            ended = track.terminated[:taken, lane] | track.truncated[:taken, lane]
            stop = int(np.argmax(ended)) + 1 if ended.any() else taken
            rows.append(_episode(track, lane, 0, stop, 0, None, None))
        discounts = self.gamma ** np.arange(taken)
        self._finished = earlier + [
            (float(e.rewards.sum()), float(e.rewards @ discounts[: len(e)]), len(e)) for e in rows
        ]
        self._began = False
        return rows

    def finished(self) -> Finished:
        """Episodes that ended since this was asked last."""
        finished, self._finished = self._finished, []
        returns, discounted, lengths = zip(*finished, strict=True) if finished else ((), (), ())
        return Finished(np.array(returns), np.array(discounted), np.array(lengths, np.int64))

    def state(self) -> Tensor:
        """All of it, as bytes in a tensor, for a checkpoint.

        An environment that cannot be pickled (some of Gymnasium's) is left out, and so are the episodes under
        way: from such a checkpoint they begin anew.
        """
        held = dict(vars(self))
        try:
            packed = pickle.dumps(held)
        except (pickle.PicklingError, AttributeError, TypeError):
            packed = pickle.dumps({"rng": self.rng, "_began": False, "_finished": self._finished})
        return torch.frombuffer(bytearray(packed), dtype=torch.uint8)

    def load(self, state: Tensor) -> None:
        """Go on from `state`. It is unpickled: only from a checkpoint of one's own."""
        vars(self).update(pickle.loads(state.numpy().tobytes()))

    def _begin(self, agent: Acts) -> None:
        n, env = self.lanes, self.env
        self._observations = env.reset(self.rng, n)
        self._start, self._idle = np.ones(n, bool), np.zeros(n, bool)
        self._ages = np.zeros(n, np.int64)
        space = env.action_space
        self._previous_action = (
            np.zeros((n, space.size), np.float32) if isinstance(space, Vector) else np.zeros(n, np.int64)
        )
        self._previous_reward = np.zeros(n)
        self._return, self._discounted = np.zeros(n), np.zeros(n)
        self._memory = agent.initial_state(n)
        self._began = True

    def _room(self, steps: int) -> _Track:
        n, o, a, s = self.lanes, self._observations, self._previous_action, self.env.states
        zeros = np.zeros
        return _Track(
            zeros((steps, *o.shape), o.dtype),
            zeros((steps, *o.shape), o.dtype),
            zeros((steps, *a.shape), a.dtype),
            zeros((steps, n)),
            zeros((steps, n), bool),
            zeros((steps, n), bool),
            zeros((steps, n), bool),
            zeros((steps, n)),
            None if s is None else zeros((steps, *s.shape), s.dtype),
            None if s is None else zeros((steps, *s.shape), s.dtype),
        )

    def _step(self, agent: Acts, track: _Track, t: int) -> None:
        env, dtype = self.env, self._memory.dtype
        inputs = StepInputs(
            _as_tensor(self._observations, dtype),
            _as_tensor(self._previous_action, dtype),
            torch.from_numpy(self._previous_reward).to(dtype),
            torch.from_numpy(self._start),
        )
        if self.device != "cpu":
            inputs = StepInputs(*(x.to(self.device) for x in inputs))
        chosen, logp, memory = agent.act(inputs, self._memory)
        actions = chosen.cpu().numpy()
        track.observations[t], track.actions[t] = self._observations, actions
        track.logp[t], track.valid[t] = logp.cpu().numpy(), ~self._idle
        if track.states is not None:
            track.states[t] = env.states
        step = env.step(to_environment(actions, env))
        if track.states_after is not None:
            track.states_after[t] = env.states
        track.led_to[t], track.rewards[t] = step.observations, step.rewards
        track.terminated[t] = step.terminated & ~self._idle
        track.truncated[t] = step.truncated & ~self._idle
        ended = track.terminated[t] | track.truncated[t]
        self._return += step.rewards
        self._discounted += self.gamma**self._ages * step.rewards
        self._ages += 1
        self._memory, self._observations = memory, step.observations
        self._previous_action, self._previous_reward = actions, step.rewards
        if ended.any():
            for lane in np.flatnonzero(ended):
                returned = float(self._return[lane]), float(self._discounted[lane])
                self._finished.append((*returned, int(self._ages[lane])))
        fresh = self._idle if env.autoresets else ended
        if env.autoresets:
            self._idle = ended
        elif ended.any():
            self._observations = step.observations.copy()
            self._observations[ended] = env.reset_lanes(ended)
        self._start = fresh
        if fresh.any():
            self._forget(fresh)

    def _forget(self, fresh: np.ndarray) -> None:
        """Lanes whose next observation is the first of an episode."""
        self._memory = self._memory.masked_fill(torch.from_numpy(fresh).to(self.device).unsqueeze(-1), 0.0)
        self._previous_action = self._previous_action.copy()
        self._previous_action[fresh] = 0
        self._previous_reward = np.where(fresh, 0.0, self._previous_reward)
        for counter in (self._ages, self._return, self._discounted):
            counter[fresh] = 0


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


def to_environment(actions: np.ndarray, env: LaneEnv) -> np.ndarray:
    """As the environment takes them: vectors come in units in which its bounds are -1 and 1."""
    space = env.action_space
    return to_bounds(actions, space) if isinstance(space, Vector) else actions


def to_bounds(actions: np.ndarray, space: Vector) -> np.ndarray:
    """From units in which the bounds are -1 and 1 to the space's own, clipped; unbounded ones as they are."""
    if not np.isfinite([space.low, space.high]).all():
        return actions.copy()
    return space.low + (actions.clip(-1, 1) + 1) / 2 * (space.high - space.low)


def _as_tensor(x: np.ndarray, dtype: torch.dtype) -> Tensor:
    return torch.from_numpy(x).to(dtype) if x.dtype.kind == "f" else torch.from_numpy(x)


def _rows(
    track: _Track, lane: int, age: int, before: tuple[Any, float], memories: np.ndarray | None
) -> list[Episode]:
    """The rows of one lane: cut where an episode ended, and where the collection did."""
    steps = len(track.valid)
    ended = np.flatnonzero(track.terminated[:, lane] | track.truncated[:, lane])
    rows, start = [], 0
    for stop in [*(ended + 1), steps]:
        while start < stop and not track.valid[start, lane]:  # the lane was only beginning anew
            start += 1
        if start == stop:
            continue
        here = age if start == 0 else 0
        memory = memories[lane] if here and memories is not None else None
        rows.append(_episode(track, lane, start, stop, here, before if here else None, memory))
        start = stop
    return rows


def _episode(
    track: _Track, lane: int, start: int, stop: int, age: int, before: tuple[Any, float] | None, memory: Any
) -> Episode:
    here = slice(start, stop), lane
    cat = np.concatenate
    terminated = bool(track.terminated[stop - 1, lane])
    states = None
    if track.states is not None and track.states_after is not None:
        states = cat([track.states[here], track.states_after[stop - 1 : stop, lane]])
    return Episode(
        observations=cat([track.observations[here], track.led_to[stop - 1 : stop, lane]]),
        actions=track.actions[here],
        rewards=track.rewards[here],
        terminated=terminated,
        truncated=not terminated,
        behavior_logp=track.logp[here],
        states=states,
        age=age,
        previous_action=None if before is None else before[0],
        previous_reward=0.0 if before is None else float(before[1]),
        memory=memory,
    )
