"""Rules by hand, players that only see what is shown, and what POPGym's own tasks were measured at."""

from __future__ import annotations

from collections.abc import Callable
from math import comb

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from numpy.testing import assert_allclose

from turnwise.envs.gymnasium.door import SingleLane, environment_id, register_environments, tasks
from turnwise.envs.problems.long_t_maze import LongTMaze
from turnwise.envs.problems.memory_tasks import (
    MEMORY_TASKS,
    MemoryTask,
    autoencode,
    count_recall,
    cue_recall,
    repeat_first,
    repeat_previous,
)
from turnwise.envs.protocol import LaneEnv

Player = Callable[[np.ndarray], np.ndarray]
"""all that each lane was shown so far, [N, t+1], to answers [N]"""


def played(env: LaneEnv, player: Player, lanes: int, seed: int = 0) -> tuple[np.ndarray, int]:
    """Returns [N] of one episode in each lane, and its length; all lanes end together."""
    shown = env.reset(np.random.default_rng(seed), lanes)[:, None]
    returns = np.zeros(lanes)
    while True:
        step = env.step(player(shown))
        returns += step.rewards
        shown = np.append(shown, step.observations[:, None], axis=1)
        if step.terminated.any():
            assert step.terminated.all() and not step.truncated.any()
            return returns, shown.shape[1] - 1


def by_previous(k: int) -> Player:
    return lambda shown: shown[:, -k] if shown.shape[1] >= k else 0 * shown[:, 0]


def by_stack(cards: int, suits: int, late: int = 0) -> Player:
    """The j-th answer is the j-th last card (`late` ones later)."""

    def player(shown: np.ndarray) -> np.ndarray:
        j = shown.shape[1] - cards
        return shown[:, max(cards - 1 - j - late, 0)] % suits if j >= 0 else 0 * shown[:, 0]

    return player


def by_counting(kinds: int) -> Player:
    return lambda shown: (shown // kinds == shown[:, -1:] % kinds).sum(axis=1)


def by_cue(question: int) -> Player:
    return lambda shown: np.where(shown[:, -1] == question, 1 + shown[:, 0], 0)


def by_sign(shown: np.ndarray) -> np.ndarray:
    return np.where(shown[:, -1] == 3, shown[:, 0], 2)


@pytest.mark.parametrize(
    ("env", "player", "length"),
    [
        (repeat_previous(), by_previous(4), 51),
        (repeat_previous(1), by_previous(1), 51),
        (repeat_previous(32, 104), by_previous(32), 103),
        (repeat_previous(5, 6, 3), by_previous(5), 5),
        (repeat_first(), lambda shown: shown[:, 0], 51),
        (autoencode(), by_stack(52, 4), 103),
        (autoencode(8), by_stack(8, 4), 15),
        (autoencode(9, 3), by_stack(9, 3), 17),
        (count_recall(), by_counting(2), 51),
        (count_recall(8), by_counting(2), 7),
        (count_recall(104, 4), by_counting(4), 103),
        (cue_recall(), by_cue(4), 22),
        (cue_recall(0), by_cue(4), 2),
        (cue_recall(7, 5, 3), by_cue(8), 9),
        (LongTMaze(), by_sign, 102),
        (LongTMaze(0), by_sign, 2),
        (LongTMaze(1000), by_sign, 1002),
    ],
)
def test_who_remembers_gets_one_every_time(env: MemoryTask | LongTMaze, player: Player, length: int) -> None:
    """From what is shown alone; this also says that every question can be answered."""
    returns, steps = played(env, player, 500)
    assert_allclose(returns, 1.0, atol=1e-12)
    assert env.maximum == pytest.approx(1.0, abs=1e-12) and steps == length


@pytest.mark.parametrize(
    ("env", "player", "expected"),
    [
        # one of the other 51 cards has the same suit with probability 12/51: 2 * 12/51 - 1
        (repeat_previous(), by_previous(3), 24 / 51 - 1),
        (repeat_previous(), by_previous(5), 24 / 51 - 1),
        # the last answer is the card 0 again, and right
        (autoencode(), by_stack(52, 4, late=1), (2 * (51 * 12 / 51 + 1)) / 52 - 1),
        # without the present card: right where another kind is asked for than is shown
        (count_recall(), lambda s: by_counting(2)(s) - (s[:, -1] // 2 == s[:, -1] % 2), 0.0),
        # waiting is right, the cue is the other one
        (cue_recall(), lambda s: by_cue(4)(np.append(1 - s[:, :1], s[:, 1:], axis=1)), 0.0),
        (LongTMaze(10), lambda s: np.where(s[:, -1] == 3, 1 - s[:, 0], 2), -1.0),
    ],
)
def test_off_by_one_is_seen_in_the_score(env: LaneEnv, player: Player, expected: float) -> None:
    """Standard error below .002 in 4000 lanes (an episode's deviation is at most .13)."""
    assert played(env, player, 4000)[0].mean() == pytest.approx(expected, abs=0.008)


@pytest.mark.parametrize(
    ("env", "popgym"),
    [(repeat_previous(), -0.51), (repeat_first(), -0.49), (autoencode(), -0.51), (count_recall(), -0.93)],
)
def test_answers_at_random_score_as_in_popgym(env: MemoryTask, popgym: float) -> None:
    """POPGym's were measured over 200 episodes, to .01; the exact number stands in `random`."""
    rng = np.random.default_rng(1)
    n = env.action_space.n
    returns, _ = played(env, lambda shown: rng.integers(n, size=len(shown)), 4000)
    assert env.random == pytest.approx(popgym, abs=0.02)
    assert returns.mean() == pytest.approx(env.random, abs=0.008)


def without_memory(env: MemoryTask, episodes: int = 20_000) -> float:
    """The best return of an answer that is a function of what is shown now.

    What is shown does not depend on answers, so that each symbol's best answer is found by itself.
    """
    rules = env.rules
    shown, right = rules.deal(np.random.default_rng(2), episodes)
    weights = np.zeros((rules.symbols, rules.answers))
    np.add.at(weights, (shown[:, :-1], right), np.broadcast_to(rules.worth, right.shape))
    return float(2 * weights.max(axis=1).sum() / episodes - 1)


def counting_blindly(cards: int) -> float:
    """The best of two kinds: which count is likeliest at an unknown step, if q is shown now, or is not.

    After t cards, the last of them known, the count of q among the others is hypergeometric.
    """
    K, chance = cards // 2, 0.0
    for shown in (0, 1):
        ways = np.zeros(K + 1)
        for t in range(1, cards):
            for c in range(shown, min(t - 1 + shown, K) + 1):
                rest = comb(K - shown, c - shown) * comb(K - 1 + shown, t - 1 - c + shown)
                ways[c] += rest / comb(cards - 1, t - 1)
        chance += ways.max() / (cards - 1) / 2
    return 2 * chance - 1


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        (repeat_previous(), 26 / 51 - 1),  # any suit but the one shown: 13 of the other 51 cards
        (repeat_previous(32, 104), 52 / 103 - 1),
        (repeat_first(), 2 * (1 + 50 * 12 / 51) / 51 - 1),  # the suit shown, right at the first step
        (autoencode(), 2 * (1 + 51 / 4) / 52 - 1),  # the first answer is shown, others are one of four
        (autoencode(8), 2 * (1 + 7 / 4) / 8 - 1),
        (count_recall(), counting_blindly(52)),
        (count_recall(8), counting_blindly(8)),
        (cue_recall(), 0.5),  # waits, and then one of two
        (cue_recall(5, 4), 0.25),  # half for waiting, then 2/4 - 1 of a half
    ],
)
def test_who_forgets_gets_what_the_page_says(env: MemoryTask, expected: float) -> None:
    assert without_memory(env) == pytest.approx(expected, abs=0.01)


def test_the_own_last_action_is_all_that_repeat_first_takes() -> None:
    """So it measures no memory in agents that see it: said the suit at the start, say what was said."""
    said: list[np.ndarray] = []

    def player(shown: np.ndarray) -> np.ndarray:
        said.append(shown[:, 0] if not said else said[-1])
        return said[-1]

    assert_allclose(played(repeat_first(), player, 10)[0], 1.0)


def test_actions_cannot_carry_a_cue_at_a_profit() -> None:
    """Cue 0: wait until asked. Cue 1: keep saying 1. Asked, say what the last action tells: right always.

    Waiting is worth half, and lost where cue 1 was shown, right up to the last step: (1 + 0) / 2, no more
    than forgetting is worth.
    """
    env = cue_recall(9)
    said: list[np.ndarray] = []

    def player(shown: np.ndarray) -> np.ndarray:
        before = np.where(shown[:, 0] == 1, 2, 0) if not said else said[-1]
        answer = np.where(shown[:, -1] == 4, np.where(before == 2, 2, 1), before)
        said.append(answer)
        return answer

    returns, _ = played(env, player, 4000)
    assert set(returns.round(9)) == {0.0, 1.0} and returns.mean() == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("make", list(MEMORY_TASKS.values()), ids=list(MEMORY_TASKS))
def test_all_wrong_is_minus_one(make: Callable[[], MemoryTask]) -> None:
    env = make()
    env.reset(np.random.default_rng(0), 3)
    total = np.zeros(3)
    for t in range(env.length):
        total += env.step((env._right[:, t] + 1) % env.action_space.n).rewards
    assert_allclose(total, -1.0, atol=1e-12)


def test_decks_hold_as_many_cards_of_each_kind() -> None:
    """13 of each suit; each order as likely: the first two suits agree in 12 of 51 cases."""
    shown, _ = repeat_previous().rules.deal(np.random.default_rng(0), 20_000)
    assert (np.sort(shown, axis=1) == np.repeat(np.arange(4), 13)).all()
    assert (shown[:, 0] == shown[:, 1]).mean() == pytest.approx(12 / 51, abs=0.012)


def test_autoencode_by_hand() -> None:
    """Suits a b: shown a, then 2 + b ("say them"), then 4 ("go on") twice; right are b, then a."""
    shown, right = autoencode(2, 2).rules.deal(np.random.default_rng(0), 50)
    assert {tuple(row) for row in np.hstack([shown, right]).tolist()} == {
        (0, 2 + 1, 4, 4, 0, 1, 0),
        (1, 2 + 0, 4, 4, 0, 0, 1),
    }
    assert autoencode(2, 2).rules.worth.tolist() == [0, 0.5, 0.5]


def test_the_maze_by_hand() -> None:
    """Two cells of corridor: a wall costs 1/3, walking nothing; the sign is shown in the first cell alone."""
    env = LongTMaze(2)
    sign = env.reset(np.random.default_rng(0), 4)
    assert set(sign.tolist()) == {0, 1}
    moves = [2, 0, 3, 3, 2, 2, 2, 2]  # E, into a wall, back, into a wall, then to the junction and its wall
    steps = [env.step(np.full(4, m)) for m in moves]
    assert [s.observations[0] for s in steps] == [2, 2, sign[0], sign[0], 2, 2, 3, 3]
    assert [s.rewards[0] for s in steps] == [0, -1 / 3, 0, -1 / 3, 0, 0, 0, -1 / 3]
    assert (env.states == 6 + sign).all()
    last = env.step(sign)
    assert (last.rewards == 1).all() and last.terminated.all() and (last.observations == 3).all()


def test_the_maze_is_cut_and_that_is_no_end() -> None:
    env = LongTMaze(0)
    env.reset(np.random.default_rng(0), 2)
    cuts = [env.step(np.array([3, 3])) for _ in range(8)]
    assert [c.truncated.all() for c in cuts] == [False] * 7 + [True] and not cuts[-1].terminated.any()
    assert LongTMaze(5, horizon=6).maximum == 0 and LongTMaze(5, horizon=7).maximum == 1


def test_a_horizon_cuts_the_task_and_its_maximum() -> None:
    env = autoencode(4, 2, horizon=5)
    env.reset(np.random.default_rng(0), 2)
    steps = [env.step(np.zeros(2, np.int64)) for _ in range(5)]
    assert steps[-1].truncated.all() and not steps[-1].terminated.any()
    assert env.length == 5 and env.maximum == 0.5 and env.random == 0.0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: repeat_previous(52), "k is 52 with 52 cards; expected 1 to 51"),
        (lambda: repeat_first(10), "10 cards of 4 kinds; expected"),
        (lambda: cue_recall(-1), "delay -1"),
        (lambda: LongTMaze(-1), "-1 cells"),
    ],
)
def test_sizes_that_cannot_be_are_refused(make: Callable[[], LaneEnv], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.filterwarnings("ignore:.*A Box observation space (min|max)imum value is:UserWarning")
@pytest.mark.filterwarnings("ignore:.*we recommend using a symmetric and normalized space:UserWarning")
@pytest.mark.parametrize("name", list(tasks()))
def test_gymnasium_has_no_complaint(name: str) -> None:
    """Other warnings are errors in this suite. Torques have units, and positions no bounds."""
    register_environments()
    env = gymnasium.make(environment_id(name)).unwrapped
    assert isinstance(env, SingleLane)
    check_env(env, skip_render_check=True)


def test_sizes_are_arguments_of_gymnasium() -> None:
    register_environments()
    env = gymnasium.make("turnwise/RepeatPrevious-v0", k=2, cards=8, suits=2)
    assert env.observation_space == gymnasium.spaces.Discrete(2)
    seen = [env.reset(seed=0)[0]]
    total = 0.0
    while True:
        observation, reward, terminated, truncated, info = env.step(seen[-2] if len(seen) > 1 else 0)
        total += float(reward)
        seen.append(observation)
        assert info == {}
        if terminated or truncated:
            break
    assert terminated and total == pytest.approx(1.0) and len(seen) == 8
    envs = gymnasium.make_vec("turnwise/CountRecall-8-v0", num_envs=3, max_episode_steps=2)
    envs.reset(seed=0)
    assert not envs.step(np.zeros(3, np.int64))[3].any() and envs.step(np.zeros(3, np.int64))[3].all()
