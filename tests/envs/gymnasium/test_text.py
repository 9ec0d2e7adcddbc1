"""Gymnasium environments with Text spaces as dialogue tasks."""

import gymnasium
import pytest
from gymnasium import spaces

import turnwise as tw
from turnwise.envs.gymnasium.text import GymnasiumTask
from turnwise.recipes.tasks import find_task
from turnwise.run.errors import SettingError

LETTERS = frozenset("abc ")


class Letter(gymnasium.Env):
    """Guess a letter of a, b, c; -1 a wrong guess."""

    action_space = spaces.Text(max_length=3, min_length=1, charset=LETTERS)
    observation_space = spaces.Text(max_length=40)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.letter = "abc"[self.np_random.integers(3)]
        return "Which letter?", {"hidden": {"letter": self.letter}}

    def step(self, action):
        found = action == self.letter
        info = {"hidden": {"letter": self.letter}}
        if found:
            info |= {"success": True, "measures": {"letters": len(action)}}
        return f"You said {action}.", 0.0 if found else -1.0, found, False, info


def test_a_conversation_by_hand():
    task = GymnasiumTask(Letter, turns=4, penalty=0.5)
    for seed in range(5):
        (opening,) = task.reset([0], [seed])
        letter = task.hidden(0)["letter"]
        assert [m.content for m in opening] == ["Which letter?"] and letter in "abc"
        wrong = "abc"[("abc".index(letter) + 1) % 3]
        first, second, third = (task.step([0], [t])[0] for t in (wrong, "XYZ", f"!{letter}abcXY"))
        assert (first.reward, first.messages[0].content) == (-1.0, f"You said {wrong}.")
        assert (second.reward, second.messages) == (-0.5, first.messages)  # nothing is left of it
        assert third.messages[0].content == f"You said {letter}ab."  # without "!", cut at three
        (cut,) = task.step([0], [wrong])
        assert cut.truncated and not cut.terminated


def test_an_end_is_no_cut_and_info_is_counted():
    task = GymnasiumTask(Letter, turns=1)
    task.reset([0], [0])
    (end,) = task.step([0], [task.hidden(0)["letter"]])
    assert (end.terminated, end.truncated, end.reward) == (True, False, 0.0)
    assert end.info["success"] and end.info["measures"] == {"letters": 1}


def test_lanes_have_environments_of_their_own():
    task, other = GymnasiumTask(Letter), GymnasiumTask(Letter)
    task.reset([0, 1], [7, 8])
    other.reset([3], [8])
    assert task.hidden(1) == other.hidden(3)
    assert task.step([0, 1], ["a", "b"])[1] == other.step([3], ["b"])[0]


def test_by_name_through_the_public_door(tmp_path, monkeypatch):
    (tmp_path / "letters.py").write_text(
        "import gymnasium\n"
        "from gymnasium import spaces\n"
        "class Twice(gymnasium.Env):\n"
        "    action_space = observation_space = spaces.Text(20)\n"
        "    def reset(self, *, seed=None, options=None):\n"
        "        self.n = 0\n"
        "        return 'go', {}\n"
        "    def step(self, action):\n"
        "        self.n += 1\n"
        "        return action * 2, 1.0, self.n == 2, False, {}\n"
    )
    monkeypatch.chdir(tmp_path)
    task = find_task("turnwise.envs.gymnasium.text:GymnasiumTask", {"env": "letters:Twice"})
    assert task.words == "turnwise.envs.gymnasium.text:GymnasiumTask env=letters:Twice"
    logs = tw.record(task, lambda messages, rng: "ab", conversations=3)
    assert [d.undiscounted_return() for d in logs] == [2.0] * 3
    assert [m.content for m in logs[0].messages] == ["go", "ab", "abab", "ab", "abab"]


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ("CartPole-v1", "actions are Text; found Discrete"),
        ("NoSuchEnv-v0", "an id of Gymnasium"),
        ("no_such_module:Env", "no_such_module"),
    ],
)
def test_what_is_no_text_environment_is_refused(env, said):
    with pytest.raises(SettingError, match=said):
        GymnasiumTask(env)


def test_turns_are_checked():
    with pytest.raises(SettingError, match="turns"):
        GymnasiumTask(Letter, turns=0)
