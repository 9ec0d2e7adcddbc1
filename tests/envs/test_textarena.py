"""Games with TextArena's interface as dialogue tasks: seats, who said what, seeds, and what comes last."""

import random

import pytest

import turnwise as tw
from turnwise.envs.textarena import OVER, TextArenaTask
from turnwise.recipes.tasks import find_task
from turnwise.run.errors import SettingError

KIND = "kind"


class Guess:
    """One player: a number of 1 to 3, drawn from Python's generator as TextArena's games do; two tries."""

    def reset(self, num_players, seed=None):
        assert num_players == 1
        random.seed(seed)
        self.number, self.tries, self.won = random.randint(1, 3), 0, False
        self.news = [(-1, "Guess a number of 1 to 3.", KIND)]

    def get_observation(self):
        news, self.news = self.news, []
        return 0, news

    def step(self, action):
        self.tries += 1
        self.won = action.strip() == str(self.number)
        self.news = [(0, action, KIND), (-1, f"Wrong. Luck: {random.randint(0, 999)}", KIND)]
        return self.won or self.tries == 2, {}

    def close(self):
        return {0: 1 if self.won else -1}, {0: {"turn_count": self.tries}}


class Say:
    """Two players in turn, four messages; who said more letters wins. Everything is shown again each time."""

    def reset(self, num_players, seed=None):
        self.player, self.talk, self.letters = 0, ["[GAME] Talk."] * num_players, [0, 0]
        self.turn = 0

    def get_observation(self):
        return self.player, self.talk[self.player]

    def step(self, action):
        self.letters[self.player] += len(action)
        self.talk = [t + f"\n[Player {self.player}] {action}" for t in self.talk]
        self.player, self.turn = 1 - self.player, self.turn + 1
        return self.turn == 4, {"none": 0}

    def close(self):
        ahead = self.letters[0] - self.letters[1]
        sign = (ahead > 0) - (ahead < 0)
        return {0: sign, 1: -sign}, None


def short(seen):
    return f"I saw {len(seen)}"


def test_a_game_of_one_player_by_hand():
    task = TextArenaTask(Guess)
    for seed in range(6):
        number = random.Random(seed).randint(1, 3)
        assert [m.content for m in task.reset([0], [seed])[0]] == ["Guess a number of 1 to 3."]
        (wrong,) = task.step([0], [str(number % 3 + 1)])
        assert wrong.reward == 0 and not wrong.terminated and wrong.messages[0].content.startswith("Wrong.")
        (right,) = task.step([0], [str(number)])
        assert (right.reward, right.terminated, right.messages) == (1.0, True, ())
        assert right.info == {"turn_count": 2, "success": True}


def test_lanes_do_not_disturb_each_other_nor_anybody_else():
    def talk(crowd):
        task, texts = TextArenaTask(Guess), []
        if crowd:
            task.reset([5], [9])
        texts += task.reset([0], [3])
        if crowd:
            task.step([5], ["no"])
            random.random()
        return [*texts, task.step([0], ["none"])[0], task.step([0], ["none"])[0]]

    random.seed(1)
    alone = talk(crowd=False)
    first = random.random()
    random.seed(1)
    assert first == random.random()
    assert talk(crowd=True) == alone


def test_two_players_see_what_is_new_and_not_their_own_words():
    task = TextArenaTask(Say, players=2, opponent=short)
    assert task.reset([0], [0])[0][0].content == "[GAME] Talk."
    (response,) = task.step([0], ["Good morning!"])
    assert response.messages[0].content == "[Player 1] I saw 37"  # 12 + 1 + 11 + 13 letters
    (end,) = task.step([0], ["Bye"])
    assert end.terminated and end.reward == 0.0  # 13 + 3 letters, and 8 + 8 of "I saw 37" and "I saw 72"


def test_the_second_seat_hears_the_first():
    task = TextArenaTask(Say, players=2, seat=1, opponent=short)
    assert task.reset([0], [0])[0][0].content == "[GAME] Talk.\n[Player 0] I saw 12"
    assert task.step([0], ["x" * 30])[0].messages[0].content == "[Player 0] I saw 74"
    (end,) = task.step([0], [""])
    assert (end.reward, end.info["success"]) == (1.0, True)


def test_a_game_that_is_over_before_the_first_turn():
    class Rude(Say):
        def step(self, action):
            super().step(action)
            return True, {}

    task = TextArenaTask(Rude, players=2, seat=1, opponent=short)
    assert task.reset([0], [0])[0][0].content == OVER
    assert task.step([0], ["hello?"])[0].reward == -1.0


def test_a_game_by_name_is_played_and_recorded(tmp_path, monkeypatch):
    (tmp_path / "my_game.py").write_text(
        "class Echo:\n"
        "    def reset(self, num_players, seed=None): self.n = 0\n"
        "    def get_observation(self): return 0, [(-1, f'Say {self.n}.', None)]\n"
        "    def step(self, action): self.n += 1; return self.n == 2, {}\n"
        "    def close(self): return {0: 0.5}, {0: {}}\n"
    )
    monkeypatch.chdir(tmp_path)
    task = find_task("turnwise.envs.textarena:TextArenaTask", {"env": "my_game:Echo"})
    assert task.words == "turnwise.envs.textarena:TextArenaTask env=my_game:Echo"
    logs = tw.record(task, lambda messages, rng: "yes", conversations=2)
    assert [d.undiscounted_return() for d in logs] == [0.5, 0.5]
    assert [m.content for m in logs[0].messages] == ["Say 0.", "yes", "Say 1.", "yes"]


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"players": 0}, "players"),
        ({"players": 2}, "opponent"),
        ({"players": 2, "opponent": short, "seat": 2}, "seat"),
        ({"players": 2, "opponent": "nowhere_at_all:me"}, "opponent"),
    ],
)
def test_what_cannot_be_is_refused(settings, named):
    with pytest.raises(SettingError, match=named):
        TextArenaTask(Say, **settings)


def test_an_id_without_the_package_says_what_is_missing():
    try:
        import textarena  # noqa: F401
    except ModuleNotFoundError:
        with pytest.raises(SettingError, match="textarena"):
            TextArenaTask("GuessTheNumber-v0")
