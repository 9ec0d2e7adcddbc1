"""A policy cloned under a critic: what it is, what it knows of its stages, and what cannot work."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import turnwise as tw
from turnwise.cli import main
from turnwise.run.errors import InputError, SettingError

LM: dict[str, Any] = {"width": 16, "layers": 1, "heads": 2, "context": 96, "vocab": 280}
SPLIT: dict[str, Any] = {"heldout": 0.25, "quiet": True}


def rows_of(n: int) -> list[dict[str, Any]]:
    """Two turns of `win` and `lose`, drawn at random; to win earns 1."""
    rng, rows = np.random.default_rng(0), []
    for i in range(n):
        messages: list[dict[str, Any]] = []
        for _ in range(2):
            word = "win" if rng.random() < 0.5 else "lose"
            messages.append({"role": "user", "content": f"case {i}"})
            messages.append({"role": "assistant", "content": word, "reward": float(word == "win")})
        rows.append({"id": f"c{i}", "messages": messages})
    return rows


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Logs, a clone of their agent, and a critic of tokens on it."""
    folder = tmp_path_factory.mktemp("awr")
    (folder / "logs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows_of(200)))
    logs = folder / "logs.jsonl"
    tw.fit(tw.BC(epochs=6.0), logs, out=folder / "bc", **SPLIT, **LM)
    tw.fit(tw.MC(epochs=6.0), logs, policy=folder / "bc", out=folder / "mc", **SPLIT, estimate=False)
    yield folder


def says_win(policy: tw.Policy) -> float:
    """How often it says `win` when asked about new cases."""
    return float(
        np.mean([policy.reply([{"role": "user", "content": f"case {i}"}], i) == "win" for i in range(60)])
    )


def test_it_says_what_the_critic_likes_and_needs_no_critic(home: Path, tmp_path: Path) -> None:
    """The clone says `win` half of the time. Its run ends with an estimate, as it has probabilities of its
    own, and knows what all its stages have learnt from; the critic in memory stays what it was."""
    critic, clone = tw.load(home / "mc"), tw.load(home / "bc")
    assert isinstance(critic, tw.Policy) and isinstance(clone, tw.Policy) and critic.agent.critic is not None
    before = [p.clone() for p in critic.agent.critic.parameters()]
    out = tmp_path / "awr"
    made = tw.fit(
        tw.AWR(epochs=6.0), home / "logs.jsonl", policy=home / "bc", critic=critic, out=out, **SPLIT
    )
    assert all(torch.equal(p, q) for p, q in zip(critic.agent.critic.parameters(), before, strict=True))
    assert made.agent.critic is None and not (out / "policy" / "critic").exists()
    beyond_chance = 0.5 + 6 * np.sqrt(0.25 / 60)
    assert says_win(clone) < beyond_chance < says_win(made)
    worth = made.result["estimate"]["worth"]
    assert worth["now"]["value"] == pytest.approx(1.0, abs=0.3) and worth["then"]["value"] > 1.5
    held = [x.held for x in (made, clone, critic)]
    assert all(h is not None for h in held) and len({tuple(h.keys) for h in held if h is not None}) == 1
    assert made.held is not None and not made.held.unknown
    settings = (out / "config.yaml").read_text()
    assert f"critic: {home / 'mc'}" in settings and "critic_content:" in settings


def test_by_the_command_line_under_a_critic_of_turns(home: Path, tmp_path: Path, capsys: Any) -> None:
    logs, turns = str(home / "logs.jsonl"), str(tmp_path / "turn-iql")
    common = ["--policy", str(home / "bc"), "--heldout", "0.25", "--no-estimate", "--epochs", "2"]
    assert main(["train", "turn-iql", logs, "--out", turns, *common]) == 0
    capsys.readouterr()
    out = tmp_path / "awr"
    assert main(["train", "awr", logs, "--out", str(out), *common, "--critic", turns, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["metrics"]
    assert found["heldout/squared_weight"] >= found["heldout/weight"] ** 2 > 0
    with pytest.raises(SystemExit, match="2"):
        main(["train", "awr", logs, "--out", str(tmp_path / "x"), *common])
    assert "--critic" in capsys.readouterr().err


def test_what_cannot_work_is_said_before_anything_is_written(home: Path, tmp_path: Path) -> None:
    def refused(says: str, kind: type[Exception] = SettingError, **given: Any) -> None:
        given = {"policy": home / "bc", "critic": home / "mc", **given}
        with pytest.raises(kind, match=says):
            tw.fit(tw.AWR(), home / "logs.jsonl", out=tmp_path / "none", **given, **SPLIT)
        assert not (tmp_path / "none").exists()

    refused("AWR needs a critic; expected the run of MC, ILQL or TurnIQL", InputError, critic=None)
    refused(r"expected a run with a critic of tokens or turns", critic=home / "bc")
    refused("this run has a critic already", InputError, policy=home / "mc")
    refused("AWR trains the trunk; it is for critics", frozen_trunk=True)
    other = tw.fit(tw.BC(epochs=1.0), home / "logs.jsonl", **SPLIT, **{**LM, "width": 8})
    assert isinstance(other, tw.Policy)
    refused("expected a critic that was learnt on .*, or on one of its shape", policy=other)
    with pytest.raises(TypeError, match="ILQL has no setting 'critic'"):
        tw.fit(tw.ILQL(), home / "logs.jsonl", policy=home / "bc", critic=home / "mc", **SPLIT)


def test_proposals_are_for_a_critic_to_choose_among(home: Path) -> None:
    """A clone has none; of a critic of tokens the result says how it acted, and what is saved stays."""
    clone, critic = tw.load(home / "bc"), tw.load(home / "mc")
    few: dict[str, Any] = {"episodes": 2, "quiet": True, "proposals": 3}
    with pytest.raises(SettingError, match="proposals is 3; expected nothing: this policy has no critic"):
        tw.evaluate(clone, "postcards", **few)
    found = tw.evaluate(replace(critic, folder=None), "helpdesk", **few).result
    assert found["proposals"] == 3 and found["shift"]["per"] == "turn"
    assert tw.load(home / "mc").agent.acting.proposals == 1
