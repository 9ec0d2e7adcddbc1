"""Cart-pole and pendulum whose velocities are not shown: it takes two observations in a row to know them.

The physics is Gymnasium's (CartPole-v1, Pendulum-v1), all lanes at once; `velocities=True` shows what
Gymnasium shows. POPGym has the same two tasks as PositionOnlyCartPole and PositionOnlyPendulum; rewards here
are Gymnasium's and not scaled.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from turnwise.envs.clock import Clock
from turnwise.envs.protocol import Discrete, Step, Vector


class CartPole:
    """A pole on a cart, pushed left (0) or right (1) every 0.02 s; 1 per step until it falls or 500 are over.

    The agent sees the cart's position (m) and the pole's angle (rad). An episode ends beyond 2.4 m or 12
    degrees. The maximum is 500, pushing at random gets 22. Source: Barto, Sutton & Anderson 1983, with the
    equations of Florian 2007 without friction; Euler steps.
    """

    gravity, force, tau = 9.8, 10.0, 0.02
    pole_mass, half_length, total_mass = 0.1, 0.5, 1.1
    beyond = np.array([2.4, np.radians(12)])

    def __init__(self, horizon: int | None = None, *, velocities: bool = False) -> None:
        """`horizon`: steps after which an episode is truncated, 500 at most."""
        self._clock = Clock(min(500, 500 if horizon is None else horizon))
        self._shown = slice(None) if velocities else slice(0, 4, 2)
        self._states = np.zeros((0, 4))

    @property
    def observation_space(self) -> Vector:
        """Position and angle; with velocities: position, its velocity, angle, its velocity."""
        return Vector(len(range(4)[self._shown]))

    @property
    def action_space(self) -> Discrete:
        """Left, right."""
        return Discrete(2)

    @property
    def state_space(self) -> Vector:
        """Position (m), velocity (m/s), angle (rad), angular velocity (rad/s)."""
        return Vector(4)

    @property
    def states(self) -> np.ndarray:
        """[N, 4] float32."""
        return self._states.astype(np.float32)

    autoresets = False
    """False: lanes begin anew by `reset_lanes`."""
    resumes = True
    """See `Resumable`."""

    def state(self) -> dict[str, Any]:
        """Where the lanes stand."""
        return self._clock.state(states=self._states)

    def load(self, state: dict[str, Any], rng: np.random.Generator) -> None:
        """Stand there, and draw from `rng` from now on."""
        arrays = self._clock.load(state, rng)
        self._states = arrays["states"]

    @property
    def maximum(self) -> float:
        """The largest return, undiscounted: an upright pole at every step."""
        return float(self._clock.horizon or 500)

    def reset(self, rng: np.random.Generator, lanes: int) -> np.ndarray:
        """All four numbers from -0.05 to 0.05. Observations [N, d]."""
        self._clock.begin(rng, lanes)
        self._states = rng.uniform(-0.05, 0.05, (lanes, 4))
        return self._seen(self._states)

    def reset_lanes(self, mask: np.ndarray) -> np.ndarray:
        """Begin anew where `mask` [N] is True. Observations of those lanes."""
        where = self._clock.begin_lanes(mask)
        self._states[where] = self._clock.rng.uniform(-0.05, 0.05, (len(where), 4))
        return self._seen(self._states[where])

    def step(self, actions: np.ndarray) -> Step:
        """Push every cart."""
        pushes = self.force * (2.0 * self._clock.check(actions, self.action_space) - 1.0)
        _, velocity, angle, turning = self._states.T
        sin, cos = np.sin(angle), np.cos(angle)
        share = self.pole_mass * self.half_length / self.total_mass
        pushed = pushes / self.total_mass + share * turning**2 * sin
        inertia = self.half_length * (4 / 3 - self.pole_mass * cos**2 / self.total_mass)
        turned = (self.gravity * sin - cos * pushed) / inertia
        changes = np.stack([velocity, pushed - share * turned * cos, turning, turned], axis=1)
        self._states = self._states + self.tau * changes
        terminated = np.any(np.abs(self._states[:, ::2]) > self.beyond, axis=1)
        truncated = self._clock.tick(terminated)
        return Step(self._seen(self._states), np.ones(len(terminated)), terminated, truncated)

    def _seen(self, states: np.ndarray) -> np.ndarray:
        return states[:, self._shown].astype(np.float32)


class Pendulum:
    """A pendulum to be swung up and held, by a torque of -2 to 2 N m every 0.05 s; 200 steps, never an end.

    The agent sees the cosine and the sine of the angle (0 is upright). The reward is
    -(angle^2 + 0.1 velocity^2 + 0.001 torque^2), before the step; no policy gets more than 0.
    Source: Gymnasium's Pendulum-v1: a rod of 1 m and 1 kg, g = 10, speed at most 8 rad/s.
    """

    gravity, tau, fastest, strongest = 10.0, 0.05, 8.0, 2.0

    def __init__(self, horizon: int | None = None, *, velocities: bool = False) -> None:
        """`horizon`: steps after which an episode is truncated, 200 at most."""
        self._clock = Clock(min(200, 200 if horizon is None else horizon))
        self._velocities = velocities
        self._states = np.zeros((0, 2))

    @property
    def observation_space(self) -> Vector:
        """Cosine, sine and, with velocities, the angular velocity."""
        return Vector(3 if self._velocities else 2)

    @property
    def action_space(self) -> Vector:
        """The torque (N m). Torques beyond the bounds are clipped."""
        return Vector(1, -self.strongest, self.strongest)

    @property
    def state_space(self) -> Vector:
        """Angle (rad, not wrapped), angular velocity (rad/s)."""
        return Vector(2)

    @property
    def states(self) -> np.ndarray:
        """[N, 2] float32."""
        return self._states.astype(np.float32)

    autoresets = False
    """False: lanes begin anew by `reset_lanes`."""
    resumes = True
    """See `Resumable`."""

    def state(self) -> dict[str, Any]:
        """Where the lanes stand."""
        return self._clock.state(states=self._states)

    def load(self, state: dict[str, Any], rng: np.random.Generator) -> None:
        """Stand there, and draw from `rng` from now on."""
        arrays = self._clock.load(state, rng)
        self._states = arrays["states"]

    def reset(self, rng: np.random.Generator, lanes: int) -> np.ndarray:
        """Any angle, velocity from -1 to 1. Observations [N, d]."""
        self._clock.begin(rng, lanes)
        self._states = self._begin(lanes)
        return self._seen(self._states)

    def reset_lanes(self, mask: np.ndarray) -> np.ndarray:
        """Begin anew where `mask` [N] is True. Observations of those lanes."""
        where = self._clock.begin_lanes(mask)
        self._states[where] = self._begin(len(where))
        return self._seen(self._states[where])

    def step(self, actions: np.ndarray) -> Step:
        """Apply `actions` [N, 1]."""
        torque = np.clip(self._clock.check(actions, self.action_space)[:, 0], -self.strongest, self.strongest)
        angle, velocity = self._states.T
        wrapped = (angle + np.pi) % (2 * np.pi) - np.pi
        rewards = -(wrapped**2 + 0.1 * velocity**2 + 0.001 * torque**2)
        faster = velocity + self.tau * (1.5 * self.gravity * np.sin(angle) + 3.0 * torque)
        velocity = np.clip(faster, -self.fastest, self.fastest)
        self._states = np.stack([angle + self.tau * velocity, velocity], axis=1)
        terminated = np.zeros(len(rewards), bool)
        truncated = self._clock.tick(terminated)
        return Step(self._seen(self._states), rewards.astype(np.float64), terminated, truncated)

    def _begin(self, lanes: int) -> np.ndarray:
        return self._clock.rng.uniform(-1.0, 1.0, (lanes, 2)) * [np.pi, 1.0]

    def _seen(self, states: np.ndarray) -> np.ndarray:
        angle, velocity = states.T
        parts = [np.cos(angle), np.sin(angle), *([velocity] if self._velocities else [])]
        return np.stack(parts, axis=1).astype(np.float32)


HIDDEN_VELOCITY = {"cartpole-hidden": CartPole, "pendulum-hidden": Pendulum}
"""names for the command line"""
