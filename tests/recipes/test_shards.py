"""Evaluation in shards: the same conversations, the same episodes for the same shards, and what cannot be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

import turnwise as tw
from turnwise.cli import main
from turnwise.evaluation.measures.agents.episodes import play
from turnwise.recipes.environments import find_environment
from turnwise.run.errors import SettingError
from turnwise.run.shards.here import shard_seed


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("shards")
    logs = base / "logs.jsonl"
    assert main(["data", "make", "--task", "helpdesk", "--conversations", "40", "--out", str(logs)]) == 0
    size: dict[str, Any] = {"width": 16, "layers": 1, "heads": 2, "context": 128, "vocab": 300}
    tw.fit(tw.BC(epochs=0.2, batch_size=8), str(logs), out=base / "bc", quiet=True, **size)
    return base / "bc"


@pytest.fixture(scope="module")
def agent() -> tw.Actor:
    return tw.fit(tw.PPO(steps=64, lanes=4), "tiger", horizon=12, quiet=True)


def test_conversations_are_the_same_ones(clone: Path) -> None:
    """Each is a function of the seed and of its own number: two means are equal but for rounding."""
    whole, parts = (tw.evaluate(clone, episodes=11, quiet=True, **x) for x in ({}, {"shards": 3}))
    assert parts.mean == pytest.approx(whole.mean) and parts.result["turns"] == whole.result["turns"]
    assert parts.result["shards"] == 3 and "shards" not in whole.result


def test_episodes_of_shards_are_those_of_their_seeds(agent: tw.Actor) -> None:
    """Slow twin: 7 episodes in 3 shards are 3, 2 and 2, each played with the seed of its shard."""
    found = tw.evaluate(agent, episodes=7, seed=5, horizon=12, quiet=True, shards=3)
    returns = []
    for shard, n in enumerate((3, 2, 2)):
        env = find_environment("tiger", n, 12)
        seed = shard_seed(5, shard)
        episodes = play(agent.saved.module, env.lanes, episodes=n, lanes=n, longest=12, gamma=0.95, seed=seed)
        returns += [float(e.rewards @ 0.95 ** np.arange(len(e))) for e in episodes]
    assert found.mean == pytest.approx(np.mean(returns), rel=1e-9)
    assert found.result["shards"] == 3


def test_what_is_in_one_place_is_not_divided(agent: tw.Actor) -> None:
    with pytest.raises(SettingError, match="workers is 2; expected 1 where the work is in shards"):
        tw.evaluate(agent, episodes=4, workers=2, shards=2, quiet=True)
    made = gymnasium.make_vec("CartPole-v1", 2)
    cart = tw.fit(tw.PPO(steps=32, lanes=2), "CartPole-v1", quiet=True)
    with pytest.raises(SettingError, match="shards is 2; expected none for a vector environment"):
        tw.evaluate(cart, made, episodes=4, shards=2, quiet=True)
    made.close()


def test_flags(clone: Path, capsys: Any) -> None:
    assert main(["evaluate", str(clone), "--episodes", "4", "--shards", "0"]) == 2
    assert "--shards 0: expected 1 or more" in capsys.readouterr().err
    assert main(["evaluate", str(clone), "--episodes", "4", "--ray", "local", "--engine", "http://x:1"]) == 2
    assert "--ray local: expected none beside an engine" in capsys.readouterr().err
