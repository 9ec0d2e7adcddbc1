"""A critic is held against conversations that its policy has not learnt from either."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

import turnwise as tw
from turnwise.data.acts.build import build_codes
from turnwise.data.disk.hashes import Hashes

SMALL = {"width": 16, "layers": 1, "heads": 2, "context": 64, "vocab": 300, "max_new_tokens": 8}


def rows(n: int) -> list[dict]:
    """Two outcomes; every third conversation was not rated."""
    draw = random.Random(0)
    found = []
    for i in range(n):
        words = " ".join(draw.choice(["sun", "rain", "wind", "snow", "fog", "hail"]) for _ in range(6))
        talk = [{"role": "user", "content": words}, {"role": "assistant", "content": f"yes {i}"}]
        found.append({"messages": talk, "outcome": None if i % 3 == 0 else float(i % 2)})
    return found


def held(run: Path) -> set[int]:
    return set(Hashes.read(run / "heldout.npy"))


@pytest.mark.parametrize("in_memory", [False, True])
def test_a_critic_holds_out_what_its_policy_held_out_though_some_have_no_outcome(
    tmp_path: Path, in_memory: bool
) -> None:
    """Leaving out changes the shares of outcomes, by which others would be held out."""
    clone = tw.fit(tw.BC(epochs=0.2), rows(150), out=tmp_path / "bc", quiet=True, heldout=0.2, **SMALL)
    policy = clone if in_memory else tmp_path / "bc"
    settings = {"policy": policy, "heldout": 0.2, "missing_outcome": "leave-out", "max_new_tokens": 8}
    tw.fit(tw.MC(epochs=0.2), rows(150), out=tmp_path / "mc", quiet=True, **settings)
    assert len(held(tmp_path / "bc")) == 30
    assert 10 < len(held(tmp_path / "mc")) < 30
    assert held(tmp_path / "mc") < held(tmp_path / "bc")


def test_a_critic_with_another_share_says_what_its_policy_may_have_learnt(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    clone = tw.fit(tw.BC(epochs=0.2), rows(150), out=tmp_path / "bc", quiet=True, heldout=0.1, **SMALL)
    capsys.readouterr()
    settings = {"policy": clone, "heldout": 0.3, "missing_outcome": 0.5, "max_new_tokens": 8}
    tw.fit(tw.MC(epochs=0.2), rows(150), out=tmp_path / "mc", **settings)
    others = len(held(tmp_path / "mc") - held(tmp_path / "bc"))
    assert others > 20
    assert f"{others} of 45 held-out conversations are not among those" in capsys.readouterr().err


def test_a_run_knows_what_any_of_its_stages_learnt_from(tmp_path: Path) -> None:
    """Codebooks of 40 conversations, and a clone of 40 others in their acts: 38 and 30 are learnt from, 2 and
    10 held out. Words alone do not make a conversation one of them, if it has an id."""
    given = [{**row, "id": f"c{i}"} for i, row in enumerate(rows(80))]
    acts = tw.fit(
        tw.Acts(agent_acts="sentence", partner_acts="sentence"), given[:40], heldout=0.05, quiet=True
    )
    settings = {"acts": acts, "heldout": 0.25, "width": 8, "out": tmp_path / "run", "quiet": True}
    clone = tw.fit(tw.ActBC(epochs=0.2), given[40:], **settings)
    again = tw.load(tmp_path / "run")
    assert isinstance(again, tw.ActPolicy) and again.held == clone.held is not None
    learnt = clone.held.learnt_from(tw.read_logs(given))
    assert (learnt[:40].sum(), learnt[40:].sum(), clone.held.unknown) == (38, 30, ())
    others = tw.read_logs([{**row, "id": "x" + row["id"]} for row in given])
    assert not clone.held.learnt_from(others).any()


def test_without_ids_words_are_known_again_wherever_they_stand(tmp_path: Path) -> None:
    """Ids that are places say nothing; and of codebooks in memory nobody knows what they learnt from."""
    codes = build_codes(tw.read_logs(rows(40)), "sentence", "sentence").codes
    clone = tw.fit(tw.ActBC(epochs=0.2), rows(40), acts=codes, heldout=0, width=8, quiet=True)
    file = tmp_path / "logs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in reversed(rows(50))))
    learnt = clone.held.learnt_from(tw.read_logs(file))
    assert learnt.tolist() == [False] * 10 + [True] * 40
    assert clone.held.unknown == ("codebooks in memory",)
