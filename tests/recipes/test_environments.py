"""Environments that people bring: by module and class or id, with arguments, by name again after training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium
import pytest

import turnwise as tw
from turnwise.cli import main
from turnwise.envs.protocol import Discrete
from turnwise.recipes.environments import find_environment, is_environment, name_of, with_arguments
from turnwise.run.errors import InputError, SettingError

CORRIDOR = '''
import gymnasium
from gymnasium import spaces
from turnwise.envs.problems.classics import tiger


class Walk(gymnasium.Env):
    """So many steps; each pays what the first of two actions is."""

    observation_space, action_space = spaces.Discrete(2, start=1), spaces.MultiDiscrete([3, 2])

    def __init__(self, length=4, pay=1.0, name="a"):
        assert isinstance(name, str)
        self.length, self.pay = length, pay

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return 1, {}

    def step(self, action):
        self.t += 1
        return 2, self.pay, self.t == self.length, False, {}


def problem(discount=0.9):
    from dataclasses import replace

    return replace(tiger(), discount=discount)


gymnasium.register("own/Walk-v3", entry_point=Walk, max_episode_steps=3)
NUMBER = 7
'''


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A folder with a user's module, in which the user stands; the module's name is like no other's."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "walks_of_a_user.py").write_text(CORRIDOR)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(folder)
        yield folder


def length_of(env: str) -> int:
    """Steps of an episode."""
    import numpy as np

    lanes = find_environment(env, 1, None).lanes
    lanes.reset(np.random.default_rng(0), 1)
    for t in range(1, 99):
        step = lanes.step(np.zeros(1, np.int64))
        if step.terminated[0] or step.truncated[0]:
            return t
    return 0


def test_an_environment_is_found_by_module_and_class_or_id(place: Path) -> None:
    """A class, its arguments, an id that the module registers (cut at 3), a function of a problem."""
    for words, steps in [
        ("walks_of_a_user:Walk", 4),
        ("walks_of_a_user.Walk", 4),
        ("walks_of_a_user:Walk length=2", 2),
        ("walks_of_a_user:own/Walk-v3", 3),
        ("walks_of_a_user:own/Walk-v3 length=2", 2),
    ]:
        found = find_environment(words, 2, None)
        assert (found.name, length_of(words)) == (words, steps)
        assert found.lanes.action_space == Discrete(6) and is_environment(words)
    problem = find_environment("walks_of_a_user:problem discount=0.5", 2, None)
    assert problem.problem is not None and problem.discount == 0.5
    assert not is_environment("walks.jsonl") and not is_environment("logs/walks.jsonl")


def test_arguments_are_words_json_or_a_dict(place: Path) -> None:
    for given in (["length=2", "name=7x"], ['{"length": 2, "name": "7x"}'], {"length": 2, "name": "7x"}):
        assert with_arguments("walks_of_a_user:Walk", given) == "walks_of_a_user:Walk length=2 name=7x"
    text = with_arguments("walks_of_a_user:Walk length=3", {"name": "7"})
    assert text == "walks_of_a_user:Walk length=3 'name=\"7\"'" and length_of(text) == 3
    frozen = find_environment(with_arguments("FrozenLake-v1", {"map_name": "8x8"}), 2, None)
    assert frozen.lanes.observation_space == Discrete(64)
    assert with_arguments("repeat-previous", {"k": 2}) == "repeat-previous k=2"


@pytest.mark.parametrize(
    ("words", "kwargs", "expected"),
    [
        ("Taxi-v3", {}, "Please use `Taxi-v4` instead"),
        ("Frozen-v1", {}, "Did you mean: `FrozenLake`"),
        ("walks_of_a_user:Wolk", {}, "or an id that it registers with Gymnasium; it has Walk"),
        ("walks_of_a_usr:Walk", {}, "expected a module in "),
        ("walks_of_a_user:NUMBER", {}, "a class or function; found int"),
        ("walks_of_a_user:Walk", {"lenth": 2}, "arguments of the environment: length, pay, name"),
        ("FrozenLake-v1", {"slip": 1}, "unexpected keyword argument 'slip'"),
        ("tiger", {"doors": 3}, "tiger takes no arguments"),
        ("repeat-previous", {"j": 3}, "arguments of the environment: k, cards"),
        ("tiger", {"doors": object()}, "doors is object"),
        ("FrozenLake-v1", ["slip"], "KEY=VALUE"),
        ("FrozenLake-v1", ["{slip: 1}"], "a JSON object"),
    ],
)
def test_what_cannot_be_found_is_told_in_the_words_of_its_world(
    place: Path, words: str, kwargs: Any, expected: str
) -> None:
    with pytest.raises(InputError) as error:
        find_environment(with_arguments(words, kwargs), 1, None)
    assert expected in str(error.value)


def test_an_environment_that_is_made_already_takes_no_arguments() -> None:
    with pytest.raises(SettingError, match="made already"):
        with_arguments(gymnasium.make("CartPole-v1"), {"a": 1})


def test_an_object_is_called_by_what_finds_it_again(place: Path) -> None:
    import walks_of_a_user as own  # type: ignore[import-not-found]

    assert name_of(own.Walk) == "walks_of_a_user:Walk"
    assert name_of(with_arguments(own.Walk, {"length": 2})) == "walks_of_a_user:Walk length=2"
    assert name_of(gymnasium.make("FrozenLake-v1", is_slippery=False)) == "FrozenLake-v1 is_slippery=false"
    assert name_of(gymnasium.make("FrozenLake-v1")) == "FrozenLake-v1"
    assert name_of(lambda: own.Walk()) == "<lambda>"


def test_an_environment_of_ones_own_is_trained_in_and_measured_by_name(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three steps that pay 2 each; measured again from the folder alone, and with other arguments."""
    numbers = ["--steps", "16", "--lanes", "2", "--rollout", "8", "--width", "8", "--json"]
    env = ["--env", "walks_of_a_user:Walk", "--env-kwargs", "length=3", "pay=2"]
    assert main(["train", "ppo", *env, *numbers, "--out", "run"]) == 0
    capsys.readouterr()
    assert main(["evaluate", "run", "--episodes", "4", "--json", "--env-kwargs", "pay=0.5"]) == 0
    assert json.loads(capsys.readouterr().out)["mean"] == 1.5
    actor = tw.load("run")
    assert tw.evaluate(actor, episodes=4, quiet=True).mean == 6.0
    assert tw.evaluate(actor, env_kwargs={"length": 5}, episodes=4, quiet=True).mean == 10.0
    assert tw.evaluate("run", "walks_of_a_user:own/Walk-v3", episodes=4, quiet=True).mean == 3.0


def test_what_fit_returned_is_measured_in_as_many_lanes_as_one_likes(place: Path) -> None:
    """Trained in 2 lanes of episodes cut at 2 steps, measured in 5; a vector environment keeps its own 2."""
    import walks_of_a_user as own  # type: ignore[import-not-found]

    config = tw.A2C(steps=16, lanes=2, rollout=8)
    actor = tw.fit(config, own.Walk, horizon=2, width=8, quiet=True)
    assert tw.evaluate(actor, episodes=5, quiet=True).mean == 2.0
    assert tw.evaluate(actor, episodes=5, horizon=3, quiet=True).mean == 3.0
    envs = gymnasium.vector.SyncVectorEnv([own.Walk] * 2)
    actor = tw.fit(config, envs, width=8, quiet=True)
    assert tw.evaluate(actor, episodes=5, quiet=True).mean == 4.0


def test_the_page_shows_what_was_done_in_the_environments_words(place: Path) -> None:
    """Of six combinations, and of 2^7 at once."""
    import walks_of_a_user as own  # type: ignore[import-not-found]

    class Bits(own.Walk):
        action_space = gymnasium.spaces.MultiBinary(7)

    for env, width in ((own.Walk, 2), (Bits, 7)):
        folder = place / f"shown-{width}"
        actor = tw.fit(tw.A2C(steps=16, lanes=2, rollout=8), env, width=8, quiet=True, out=folder)
        tw.evaluate(actor, episodes=2, quiet=True)
        shown = json.loads((folder / "episodes.jsonl").read_text().splitlines()[0])
        done = json.loads(shown["steps"][0]["action"])
        assert len(done) == width and all(isinstance(x, int) for x in done)
        assert shown["actions"] == (
            None if width == 7 else [f"[{a}, {b}]" for a in (0, 1, 2) for b in (0, 1)]
        )
