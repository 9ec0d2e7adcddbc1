"""Checkpoints of runs on logs as policies: the last one is what the run came to, and all can be compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import turnwise as tw
from turnwise.cli import main
from turnwise.recipes.checkpoints import earlier_checkpoints
from turnwise.rollout.acts.chooser import Prefix
from turnwise.rollout.acts.logged import chances
from turnwise.run.errors import InputError

SEEN = [Prefix.of(0), Prefix.of(0, [1], [1]), Prefix.of(0, [1, 0], [1, 1])]
LM: dict[str, Any] = {"width": 16, "layers": 1, "heads": 2, "context": 96, "vocab": 280}
KEEP: dict[str, Any] = {"checkpoint_every": 4, "checkpoints": 3, "heldout": 0.0, "quiet": True}


def rows_of(n: int, seed: int = 0) -> list[dict[str, Any]]:
    """Two turns of `win`, which pays 3, and `lose`, drawn at random."""
    rng, rows = np.random.default_rng(seed), []
    for i in range(n):
        messages: list[dict[str, Any]] = []
        for _ in range(2):
            word = "win" if rng.random() < 0.5 else "lose"
            messages.append({"role": "user", "content": "case", "act": "ask"})
            messages.append(
                {"role": "assistant", "content": word, "act": word, "reward": 3.0 * (word == "win")}
            )
        rows.append({"id": f"c{seed}-{i}", "messages": messages})
    return rows


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of 5 steps a pass on 40 conversations, 10 steps in all."""
    folder = tmp_path_factory.mktemp("checkpoints")
    (folder / "others.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows_of(60, 1)))
    many = {"epochs": 2.0, "batch_size": 8}
    tw.fit(tw.ActMC(**many, beta=2.0), rows_of(40), width=8, out=folder / "acts", **KEEP)
    tw.fit(tw.BC(**many), rows_of(40), out=folder / "bc", **KEEP, **LM)
    tw.fit(tw.MC(**many), rows_of(40), policy=folder / "bc", out=folder / "mc", **KEEP)
    return folder


def files(run: Path) -> list[Path]:
    found = [f for f in (run / "checkpoints").iterdir() if f.suffix == ".safetensors"]
    return sorted(found, key=lambda f: int(f.stem.removeprefix("step-")))


def test_as_many_stay_as_were_asked_for(home: Path) -> None:
    """Steps 4, 8 and 10, the last one; without asking the last two."""
    assert [f.name for f in files(home / "acts")] == [f"step-{n}.safetensors" for n in (4, 8, 10)]
    assert [step for step, _ in earlier_checkpoints(home / "acts")] == [4, 8]
    with pytest.raises(InputError, match="checkpoints is 1"):
        tw.fit(tw.ActMC(), rows_of(4), checkpoints=1, quiet=True)


def test_the_last_one_is_the_policy_of_acts_itself(home: Path) -> None:
    """Values are learnt in deviations of the return, and act in its units: to the last bit."""
    run, first, last = (
        tw.load(x) for x in (home / "acts", files(home / "acts")[0], files(home / "acts")[-1])
    )
    assert (
        isinstance(run, tw.ActPolicy) and isinstance(first, tw.ActPolicy) and isinstance(last, tw.ActPolicy)
    )
    size = len(run.agent.codes.acts)
    p, early, late = (chances(x.agent.chooser, SEEN, size) for x in (run, first, last))
    assert np.array_equal(p, late) and not np.allclose(p, early, atol=1e-4)
    assert last.folder is None and last.held == run.held


@pytest.mark.parametrize("name", ["bc", "mc"])
def test_so_it_is_of_one_that_writes(home: Path, name: str) -> None:
    run, first, last = (tw.load(x) for x in (home / name, files(home / name)[0], files(home / name)[-1]))
    assert isinstance(run, tw.Policy) and isinstance(first, tw.Policy) and isinstance(last, tw.Policy)
    (row,) = run.agent.chat.encode([tw.read_logs(rows_of(1), quiet=True)[0]])
    key = "q" if name == "mc" else "logp"
    own, early, late = (torch.as_tensor(x.agent.values(row)[key]) for x in (run, first, last))
    assert torch.equal(own, late) and not torch.allclose(own, early, atol=1e-4)


def test_they_are_candidates_of_a_comparison(
    home: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TURNWISE_REHEARSAL", "1")
    run = home / "acts"
    words = ["compare", str(run), "--checkpoints", "--logs", str(home / "others.jsonl"), "--json"]
    assert main(words) == 0
    names = {row["name"] for row in json.loads(capsys.readouterr().out)["rows"]}
    assert names == {"the logged agent", str(run), f"{run}, step 4", f"{run}, step 8"}
    assert main(["evaluate", str(files(run)[0]), "--logs", str(home / "others.jsonl")]) == 0
    assert "worth now:" in capsys.readouterr().out and not (run / "estimate.json").exists()
    named = tw.compare([files(run)[0]], home / "others.jsonl", quiet=True)
    assert str(files(run)[0]) in {row["name"] for row in named["rows"]}


def test_what_is_no_policy_is_said(home: Path, tmp_path: Path) -> None:
    tw.fit(tw.ActBC(epochs=1.0), rows_of(20), width=4, out=tmp_path / "run", **KEEP)
    other = tmp_path / "run" / "checkpoints" / "step-9.safetensors"
    other.write_bytes(files(home / "bc")[0].read_bytes())
    with pytest.raises(InputError, match=r"step-9.safetensors: module lacks .*; expected a checkpoint of"):
        tw.load(other)
    (home / "acts" / "checkpoints" / "broken.safetensors").write_bytes(b"nothing")
    with pytest.raises(InputError, match="damaged, or no checkpoint"):
        tw.load(home / "acts" / "checkpoints" / "broken.safetensors")
