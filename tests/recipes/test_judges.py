"""Who judges: one reward or several, by name, in memory, with weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from turnwise.data.tokens import TokenWriter
from turnwise.envs.dialogue import Message
from turnwise.recipes.training.feedback.judges import apart, combined, find_judges, recorded
from turnwise.rollout.replies import Reply
from turnwise.rollout.rewards import FunctionReward, LengthReward
from turnwise.run.errors import InputError, SettingError


def reply(text: str) -> Reply:
    row = TokenWriter()
    row.read([0])
    row.act([1], 0.0, None)
    return Reply((Message("user", "Why?"),), text, row.tokens(terminated=True, next_known=True, id=""), True)


REPLIES = [reply("a"), reply("bbb")]


def letters(completions: Any, **_: Any) -> list[float]:
    return [float(len(c[0]["content"])) for c in completions]


def only_a(completions: Any, **_: Any) -> list[float | None]:
    return [10.0 if c[0]["content"] == "a" else None for c in completions]


@pytest.mark.parametrize(
    "reward",
    [
        [letters, (only_a, 0.5)],
        {letters: 1, only_a: 0.5},
        [(letters, 1.0), (only_a, 0.5)],
        (letters, (only_a, 0.5)),
        [f"{__name__}:letters", f"{__name__}:only_a=0.5"],
        {f"{__name__}:letters": 1.0, f"{__name__}:only_a": 0.5},
    ],
)
def test_several_judges_add_up_with_their_weights(reward: Any) -> None:
    """1 + .5 x 10 = 6; of the other reply the second judge has no opinion: 3. Each stands by itself too."""
    judges = find_judges(reward)
    assert [j.weight for j in judges] == [1.0, 0.5]
    assert recorded(judges) == f"{__name__}:letters + 0.5 {__name__}:only_a"
    each: Any = [j.judge for j in judges]
    assert combined(each, judges)(REPLIES).tolist() == [6.0, 3.0]
    terms = apart(each, judges)
    assert [name.rpartition(":")[2] for name in terms] == ["letters", "only_a"]
    by_a = terms[f"reward/{__name__}:only_a"](REPLIES)
    assert by_a[0] == 10 and np.isnan(by_a[1])


def test_one_judge_is_itself() -> None:
    (judge,) = find_judges(letters)
    assert isinstance(judge.judge, FunctionReward) and (judge.weight, judge.model) == (1.0, None)
    assert combined([judge.judge], [judge]) is judge.judge and apart([judge.judge], [judge]) == {}
    (half,) = find_judges((letters, 0.5))
    assert combined([half.judge], [half])(REPLIES).tolist() == [0.5, 1.5]  # pyright: ignore
    assert recorded([half]) == f"0.5 {__name__}:letters"
    (own,) = find_judges(LengthReward(-1.0))
    assert own.name == "LengthReward"
    assert find_judges(None) == find_judges(()) == [] and recorded([]) is None


def test_a_folder_may_have_an_equals_sign_in_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is there is a path before it is a weight."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lr=3").mkdir()
    with pytest.raises(InputError, match=r"lr=3: config.json is missing"):
        find_judges("lr=3")
    with pytest.raises(SettingError, match="expected the run folder") as refused:
        find_judges("lr=4")
    assert refused.value.value == "lr"


@pytest.mark.parametrize("weight", [0, float("nan"), float("inf"), True, "1"])
def test_a_weight_is_a_finite_number(weight: Any) -> None:
    with pytest.raises(SettingError, match="a finite weight other than 0"):
        find_judges({letters: weight})
    with pytest.raises(TypeError, match="reward is int; expected a reward model, a function, or a name"):
        find_judges(7)
