"""Gymnasium's environments as lanes: what was seen last is what truncation bootstraps from, in every mode."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from numpy.testing import assert_allclose, assert_array_equal

from turnwise.envs.gymnasium.door import PomdpVectorEnv, VectorLanes, register_environments
from turnwise.envs.gymnasium.lanes import GymnasiumLanes, lanes_by_id, lanes_of_gymnasium
from turnwise.envs.gymnasium.spaces import Actions, Observations
from turnwise.envs.problems.classics import tiger
from turnwise.envs.problems.hidden_velocity import CartPole, Pendulum
from turnwise.envs.protocol import Discrete, LaneEnv, MultiDiscrete, Vector
from turnwise.envs.tabular import TabularEnv
from turnwise.run.errors import InputError


class Counter(gymnasium.Env[np.ndarray, int]):
    """Shows (episode, steps in it). Action 1 ends it, the third step cuts it; a step pays what it reaches."""

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012

    def __init__(self) -> None:
        self.observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.action_space = spaces.Discrete(2)
        self.episode, self.t = -1, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.episode, self.t = self.episode + 1, 0
        return np.array([self.episode, 0], np.float32), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.t += 1
        seen = np.array([self.episode, self.t], np.float32)
        return seen, float(self.t), bool(action == 1), self.t == 3, {}


def counters(n: int, mode: AutoresetMode) -> SyncVectorEnv:
    return SyncVectorEnv([Counter] * n, autoreset_mode=mode)


def transitions(env: LaneEnv, lanes: int, steps: int, seed: int = 0) -> list[list[tuple[Any, ...]]]:
    """Per lane: (seen, action, reward, terminated, truncated, seen next), without steps that only begin anew.

    Action k of a lane's episode e is a function of (lane, e, k), so that modes can be compared.
    """
    seen, over = env.reset(np.random.default_rng(seed), lanes), np.zeros(lanes, bool)
    out: list[list[tuple[Any, ...]]] = [[] for _ in range(lanes)]
    for _ in range(steps):
        if not env.autoresets:
            seen = seen.copy()
            seen[over] = env.reset_lanes(over)
            over = np.zeros(lanes, bool)
        actions = np.array([[0, 0, 0], [0, 1, 0], [1, 1, 1]])[
            (np.arange(lanes) + seen[:, 0].astype(int)) % 3, np.minimum(seen[:, 1].astype(int), 2)
        ]
        step = env.step(actions)
        for i in np.flatnonzero(~over):
            ends = (step.rewards[i], step.terminated[i], step.truncated[i])
            out[i].append(
                (seen[i].tolist(), int(actions[i]), *(x.item() for x in ends), step.observations[i].tolist())
            )
        if env.autoresets:
            assert not step.rewards[over].any() and not (step.terminated | step.truncated)[over].any()
        seen, over = step.observations, step.terminated | step.truncated
    return out


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_a_cut_episode_by_hand(mode: AutoresetMode) -> None:
    """Three steps of action 0: seen (0,1), (0,2), (0,3), cut; the next episode begins with (1,0)."""
    env = GymnasiumLanes(counters(1, mode))
    assert env.reset(np.random.default_rng(0), 1).tolist() == [[0, 0]]
    still = np.zeros(1, np.int64)
    assert [env.step(still).observations.tolist() for _ in range(2)] == [[[0, 1]], [[0, 2]]]
    last = env.step(still)
    assert last.observations.tolist() == [[0, 3]] and last.rewards.tolist() == [3]
    assert not last.terminated.any() and last.truncated.all()
    if env.autoresets:
        assert env.step(still).observations.tolist() == [[1, 0]]
    else:
        with pytest.raises(ValueError, match="lane 0 has ended"):
            env.step(still)
        assert env.reset_lanes(np.array([True])).tolist() == [[1, 0]]
    assert env.step(still).observations.tolist() == [[1, 1]]


def test_all_modes_tell_the_same_story() -> None:
    """Lanes end at different steps; NEXT_STEP needs one more step for each episode, and tells less in 40."""
    told = {m: transitions(GymnasiumLanes(counters(4, m)), 4, 40) for m in AutoresetMode}
    assert told[AutoresetMode.SAME_STEP] == told[AutoresetMode.DISABLED]
    for lane, story in enumerate(told[AutoresetMode.NEXT_STEP]):
        assert 18 < len(story) < 40 and story == told[AutoresetMode.DISABLED][lane][: len(story)]
        cut = [(before, after) for before, _, _, _, truncated, after in story if truncated]
        assert cut and all(b[0] == a[0] and a[1] == 3 for b, a in cut)
        assert any(terminated for _, _, _, terminated, _, _ in story)


def test_an_end_that_is_also_a_cut_is_an_end() -> None:
    env = GymnasiumLanes(counters(1, AutoresetMode.NEXT_STEP))
    env.reset(np.random.default_rng(0), 1)
    for a in (0, 0):
        env.step(np.array([a]))
    step = env.step(np.array([1]))
    assert step.terminated.tolist() == [True] and step.truncated.tolist() == [False]


def test_what_was_returned_stays_as_it_was() -> None:
    """Also where the environment hands out its own buffers."""
    env = GymnasiumLanes(SyncVectorEnv([Counter] * 2, copy=False, autoreset_mode="SameStep"))
    first = env.reset(np.random.default_rng(0), 2)
    steps = [env.step(np.array([0, 0])) for _ in range(3)]
    assert first.tolist() == [[0, 0]] * 2
    assert [s.observations[0].tolist() for s in steps] == [[0, 1], [0, 2], [0, 3]]


def test_lanes_under_way_cannot_be_begun_anew_in_same_step() -> None:
    env = GymnasiumLanes(counters(2, AutoresetMode.SAME_STEP))
    with pytest.raises(ValueError, match="reset comes first"):
        env.step(np.array([0, 0]))
    env.reset(np.random.default_rng(0), 2)
    env.step(np.array([0, 1]))
    with pytest.raises(ValueError, match="lane 0 is under way"):
        env.reset_lanes(np.array([True, True]))
    assert env.reset_lanes(np.array([False, False])).shape == (0, 2)
    assert env.reset_lanes(np.array([False, True])).tolist() == [[1, 0]]
    with pytest.raises(ValueError, match="next step"):
        next_step = GymnasiumLanes(counters(1, AutoresetMode.NEXT_STEP))
        next_step.reset(np.random.default_rng(0), 1)
        next_step.reset_lanes(np.array([True]))


def test_who_does_not_declare_a_mode_is_refused() -> None:
    envs = counters(2, AutoresetMode.NEXT_STEP)
    envs.metadata = {"render_modes": []}
    with pytest.raises(InputError, match=r"metadata\['autoreset_mode'\].* is None.*AutoresetMode.SAME_STEP"):
        lanes_of_gymnasium(envs, 2)


def test_the_number_of_lanes_is_the_environments() -> None:
    with pytest.raises(InputError, match="has 2 environments; expected 3"):
        lanes_of_gymnasium(counters(2, AutoresetMode.NEXT_STEP), 3)
    with pytest.raises(ValueError, match="lanes is 3; expected 2"):
        GymnasiumLanes(counters(2, AutoresetMode.NEXT_STEP)).reset(np.random.default_rng(0), 3)


NESTED = spaces.Dict(
    {
        "card": spaces.Discrete(3, start=5),
        "box": spaces.Box(-2, 2, (2, 2), np.float32),
        "many": spaces.MultiDiscrete([2, 3], start=[0, 1]),
        "pair": spaces.Tuple((spaces.MultiBinary(3), spaces.Box(0, 255, (1,), np.uint8))),
        "word": spaces.Text(4),
    }
)


@pytest.mark.parametrize(
    "space", [NESTED, *NESTED.spaces.values(), spaces.MultiDiscrete([[2, 3], [4, 5]])], ids=str
)
def test_observations_are_flattened_as_gymnasium_does(space: spaces.Space[Any]) -> None:
    """The batch read at once is gymnasium.spaces.flatten of each; a Discrete alone stays a symbol."""
    space.seed(0)

    class Env(gymnasium.Env[Any, int]):
        observation_space, action_space = space, spaces.Discrete(2)
        metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012

        def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
            self.shown = space.sample()
            return self.shown, {}

        def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
            return self.reset()[0], 0.0, action == 1, False, {}

    envs = SyncVectorEnv([Env] * 3, autoreset_mode="SameStep")
    env = GymnasiumLanes(envs)

    def expected() -> np.ndarray:
        each = [spaces.flatten(space, e.unwrapped.shown) for e in envs.envs]  # type: ignore[attr-defined]
        return np.stack(each).argmax(1) if isinstance(space, spaces.Discrete) else np.stack(each)

    seen = env.reset(np.random.default_rng(0), 3)
    assert_array_equal(seen, expected())
    assert seen.dtype == (np.int64 if isinstance(env.observation_space, Discrete) else np.float32)
    if isinstance(env.observation_space, Vector):
        assert env.observation_space == Vector(spaces.flatdim(space)) and seen.shape == (
            3,
            spaces.flatdim(space),
        )
    assert_array_equal(env.step(np.array([0, 0, 0])).observations, expected())
    env.step(np.array([0, 1, 0]))
    assert_array_equal(env.reset_lanes(np.array([False, True, False])), expected()[1:2])


def test_the_last_observation_of_a_dict_is_read_too() -> None:
    space = spaces.Dict({"a": spaces.Discrete(3), "b": spaces.Box(0, 9, (1,), np.float32)})
    read = Observations.of(space).read_each([{"a": 2, "b": np.array([7.0])}, {"a": 0, "b": np.array([8.0])}])
    assert read.tolist() == [[0, 0, 1, 7], [1, 0, 0, 8]]


def test_what_has_no_size_is_refused() -> None:
    with pytest.raises(InputError, match="no fixed size"):
        Observations.of(spaces.Sequence(spaces.Discrete(2)))
    with pytest.raises(InputError, match="expected Discrete, MultiDiscrete"):
        Actions.of(spaces.Text(3))
    with pytest.raises(InputError, match="symbols alone, or numbers alone"):
        Actions.of(spaces.Tuple((spaces.Discrete(2), spaces.Box(0, 1))))


def test_actions_are_written_as_gymnasium_counts_them() -> None:
    symbols = Actions.of(spaces.Discrete(3, start=-1))
    assert symbols.space == Discrete(3) and symbols.write(np.array([0, 2])).tolist() == [-1, 1]
    same = Actions.of(spaces.Box(-2, 2, (2, 1), np.float32))
    assert same.space == Vector(2, -2, 2) and same.write(np.array([[1.0, 2.0]])).tolist() == [[[1], [2]]]
    free = Actions.of(spaces.Box(-np.inf, np.inf, (1,), np.float32))
    assert free.space == Vector(1)
    uneven = Actions.of(spaces.Box(np.array([0, -4]), np.array([np.inf, 4]), dtype=np.float64))
    assert uneven.space == Vector(2, (0.0, -4.0), (float("inf"), 4.0))
    assert uneven.write(np.array([[7, 2]])).tolist() == [[7, 2]]
    whole = Actions.of(spaces.Box(0, 9, (2,), np.int32))
    assert whole.write(np.array([[0.4, 8.6]])).tolist() == [[0, 9]]


def test_a_few_symbols_at_once_are_one_symbol_for_each_combination() -> None:
    """Of sizes 2 and 3 the last changes fastest: symbol 4 is 1 and 1. Nine bits have 512, and too many."""
    few = Actions.of(spaces.MultiDiscrete([2, 3], start=[0, 5]))
    assert few.space == Discrete(6) and few.write(np.array([0, 4])).tolist() == [[0, 5], [1, 6]]
    bits = Actions.of(spaces.MultiBinary((2, 2)))
    assert bits.space == Discrete(16) and bits.write(np.array([5])).tolist() == [[[0, 1], [0, 1]]]
    many = Actions.of(spaces.MultiBinary(9))
    assert many.space == MultiDiscrete((2,) * 9)
    assert many.write(np.eye(9, dtype=np.int64)[:1]).tolist() == [[1, 0, 0, 0, 0, 0, 0, 0, 0]]
    named = Actions.of(spaces.Dict({"go": spaces.Discrete(2), "how": spaces.Tuple([spaces.Discrete(3)])}))
    (go,), ((how,),) = (named.write(np.array([5]))[key] for key in ("go", "how"))
    assert named.space == Discrete(6) and (go, how) == (1, 2)


@pytest.mark.parametrize(
    ("box", "shape", "last", "sides", "channels"),
    [
        (spaces.Box(0, 255, (84, 80, 3), np.uint8), (84, 80, 3), True, (84, 80), 3),
        (spaces.Box(0, 255, (4, 84, 80), np.uint8), (4, 84, 80), False, (84, 80), 4),
        (spaces.Box(0, 255, (40, 30), np.uint8), (40, 30), False, (40, 30), 1),
        (spaces.Box(0, 1, (4, 12, 10, 3), np.float32), (4, 12, 10, 3), True, (12, 10), 12),
        (spaces.Box(0, 255, (4, 3, 12, 10), np.uint8), (4, 3, 12, 10), False, (12, 10), 12),
    ],
)
def test_an_image_is_known_by_its_shape(box: Any, shape: Any, last: bool, sides: Any, channels: int) -> None:
    space = Observations.of(spaces.Dict({"a": spaces.Discrete(3), "see": box})).space
    assert isinstance(space, Vector)
    (image,) = space.images
    assert (image.at, image.shape, image.channels_last) == (3, shape, last)
    assert (image.sides, image.channels) == (sides, channels)


def test_what_is_no_image_stays_a_vector() -> None:
    for box in (spaces.Box(0, 1, (9, 9)), spaces.Box(0, 255, (128,), np.uint8), spaces.Box(0, 1, (4, 4, 4))):
        assert not Observations.of(box).space.images  # type: ignore[union-attr]


def test_gymnasiums_own_vector_is_preferred() -> None:
    """CartPole has one, with NEXT_STEP and a time limit of its own; Pendulum has not."""
    cart = lanes_of_gymnasium("CartPole-v1", 3)
    assert cart.autoresets and cart.observation_space == Vector(4) and cart.action_space == Discrete(2)
    assert cart.state_space is None and cart.states is None
    pendulum = lanes_of_gymnasium("Pendulum-v1", 2, max_episode_steps=3)
    assert not pendulum.autoresets and pendulum.action_space == Vector(1, -2.0, 2.0)
    pendulum.reset(np.random.default_rng(0), 2)
    cuts = [pendulum.step(np.zeros((2, 1), np.float32)).truncated.all() for _ in range(3)]
    assert cuts == [False, False, True]


def test_the_same_seed_is_the_same_experience() -> None:
    def seen(seed: int) -> np.ndarray:
        env = lanes_of_gymnasium("CartPole-v1", 4)
        first = env.reset(np.random.default_rng(seed), 4)
        return np.stack([first, *(env.step(np.ones(4, np.int64)).observations for _ in range(30))])

    assert_array_equal(seen(1), seen(1))
    assert np.abs(seen(1) - seen(2)).max() > 1e-3


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize("sync", [False, True])
def test_hidden_states_of_ours_come_through(mode: AutoresetMode, sync: bool) -> None:
    """Tiger's state is told: in a lane that ended the state reached, then that of the new episode."""
    register_environments()
    envs: VectorEnv = PomdpVectorEnv(tiger(accuracy=1.0), 50, horizon=2, autoreset_mode=mode)
    if sync:
        envs = SyncVectorEnv(
            [lambda: gymnasium.make("turnwise/Tiger-v0", horizon=2)] * 50, autoreset_mode=mode
        )
    env = GymnasiumLanes(envs)
    assert env.state_space == Discrete(2) and env.states is None
    assert env.reset(np.random.default_rng(0), 50).tolist() == [2] * 50
    begun = env.states
    assert begun is not None and 10 < begun.sum() < 40
    for _ in range(2):
        step = env.step(np.zeros(50, np.int64))
        assert_array_equal(env.states, begun)  # listening moves no tiger
    assert step.truncated.all()
    if env.autoresets:
        env.step(np.zeros(50, np.int64))
    else:
        env.reset_lanes(np.ones(50, bool))
    assert env.states is not None and 10 < env.states.sum() < 40 and (env.states != begun).any()


def test_ours_come_without_gymnasium_in_between() -> None:
    for name in ("tiger", "turnwise/Tiger-v0"):
        env = lanes_by_id(name, 4, horizon=3)
        assert isinstance(env, TabularEnv) and env.horizon == 3 and env.null == 2
    shown = lanes_by_id("cheese", 4)
    assert isinstance(shown, TabularEnv) and shown.null is None
    assert isinstance(lanes_by_id("turnwise/CartPole-hidden-v0", 4), CartPole)
    assert isinstance(lanes_by_id("pendulum-hidden", 4), Pendulum)
    assert isinstance(lanes_by_id("CartPole-v1", 4), GymnasiumLanes)
    with pytest.raises(
        InputError, match=r"no environment is called 'lion'; expected one of tiger, .*Gymnasium"
    ):
        lanes_by_id("lion", 4)


@pytest.mark.parametrize(("horizon", "length"), [(5, 5), (None, 200), (300, 200)])
def test_a_horizon_can_only_cut_earlier(horizon: int | None, length: int) -> None:
    for name in ("Pendulum-v1", "pendulum-hidden"):
        env = lanes_by_id(name, 1, horizon)
        env.reset(np.random.default_rng(0), 1)
        t = 1
        while not env.step(np.zeros((1, 1))).truncated[0]:
            t += 1
        assert t == length


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_vectors_and_cuts_of_ours_go_through_gymnasium_and_back(mode: AutoresetMode) -> None:
    """A pendulum, cut after 3 steps: what is seen last follows from what was seen before it."""
    env = GymnasiumLanes(VectorLanes(Pendulum(horizon=3, velocities=True), 4, mode))
    seen = env.reset(np.random.default_rng(0), 4)
    push = np.full((4, 1), 1.5)
    for t in range(12):
        step = env.step(push)
        beginning = env.autoresets and t % 4 == 3
        assert step.truncated.all() == (t % (4 if env.autoresets else 3) == 2)
        if not beginning:
            assert_allclose(step.observations, after(seen, 1.5), atol=1e-5)
        seen = step.observations
        if step.truncated.all() and not env.autoresets:
            seen = env.reset_lanes(np.ones(4, bool))
        assert env.states is not None
        assert_allclose(np.cos(env.states[:, 0]), seen[:, 0], atol=1e-5)


def after(seen: np.ndarray, torque: float) -> np.ndarray:
    """What a pendulum shows 0.05 s after it shows (cos, sin, velocity)."""
    velocity = np.clip(seen[:, 2] + 0.05 * (15 * seen[:, 1] + 3 * torque), -8, 8)
    angle = np.arctan2(seen[:, 1], seen[:, 0]) + 0.05 * velocity
    return np.stack([np.cos(angle), np.sin(angle), velocity], axis=1)
