"""Checkpoints hold tensors and text, say if a bit of them has changed, and fit one learner only."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import nn

from turnwise.models.target import slow_copy
from turnwise.run.errors import InputError
from turnwise.run.files.checkpoint import Checkpoints, read_checkpoint, write_checkpoint
from turnwise.run.learner import Learner
from turnwise.run.settings import AdamW
from turnwise.run.training import TrainingRun

STATE: dict[str, Any] = {
    "step": 7,
    "module": {
        "w": torch.tensor([[1.5, -2.0]], dtype=torch.float64),
        "b": torch.tensor(3, dtype=torch.int32),
    },
    "flags": [torch.tensor([True, False]), (1e-5, float("inf"), None), "Größe"],
    "none": torch.zeros(0, 4, dtype=torch.bfloat16),
    "one": torch.ones(()).expand(1),
    "arrays": {"none": np.zeros(0), "bits": np.array([True]), "half": np.array([[1.5]], np.float32)[:, ::-1]},
    "generator": np.random.default_rng(1).bit_generator.state,
}


def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    """Numbers to the last bit (those of a generator have 128), tuples as tuples, and other tools read it."""
    file = tmp_path / "a.safetensors"
    write_checkpoint(file, STATE)
    found = read_checkpoint(file)
    for x, y in ((found["module"], STATE["module"]), (found, STATE)):
        assert x.keys() == y.keys()
    assert torch.equal(found["module"]["w"], STATE["module"]["w"])
    assert found["module"]["b"].dtype == torch.int32 and found["module"]["b"].shape == ()
    assert found["flags"][0].tolist() == [True, False] and found["flags"][1:] == STATE["flags"][1:]
    assert found["none"].shape == (0, 4) and found["none"].dtype == torch.bfloat16
    assert found["generator"] == STATE["generator"] and found["one"].tolist() == [1.0]
    for name, x in STATE["arrays"].items():
        np.testing.assert_array_equal(found["arrays"][name], x, strict=True)
    with safe_open(file, "pt") as other:
        assert torch.equal(other.get_tensor("module/w"), STATE["module"]["w"])
    assert os.listdir(tmp_path) == ["a.safetensors"]


def test_tied_weights_stay_tied_and_are_written_once(tmp_path: Path) -> None:
    """1,000 numbers of 8 bytes under two names: 8,000 bytes and a header, not 16,000."""
    x = torch.ones(1000, dtype=torch.float64)
    write_checkpoint(tmp_path / "a", {"in": x, "out": x, "part": x[:500]})
    assert 12_000 < (tmp_path / "a").stat().st_size < 13_000  # the part is another tensor
    found = read_checkpoint(tmp_path / "a")
    assert found["in"] is found["out"] and len(found["part"]) == 500


def test_every_flipped_bit_of_a_checkpoint_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "a"
    write_checkpoint(file, STATE)
    whole = file.read_bytes()
    flips = [(byte, byte % 8) for byte in range(0, len(whole), 3)]
    for byte, bit in flips:
        changed = bytearray(whole)
        changed[byte] ^= 1 << bit
        file.write_bytes(changed)
        with pytest.raises(InputError, match=r"damaged, or no checkpoint .*; expected the file as a run"):
            read_checkpoint(file)
    for other in (whole[:-1], whole + b"\0", whole[:100], b""):
        file.write_bytes(other)
        with pytest.raises(InputError, match="damaged, or no checkpoint"):
            read_checkpoint(file)


def test_a_pickle_in_place_of_a_checkpoint_is_not_executed(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return os.mkdir, (str(tmp_path / "executed"),)

    folder = tmp_path / "checkpoints"
    folder.mkdir()
    for content in (pickle.dumps(Evil()), b""):
        (folder / "step-3.safetensors").write_bytes(content)
        if not content:
            torch.save({"step": 3, "evil": Evil()}, folder / "step-3.safetensors")
        with pytest.raises(InputError, match=r"step-3.safetensors: damaged, or no checkpoint"):
            Checkpoints(tmp_path).latest()
    assert not (tmp_path / "executed").exists()
    with pytest.raises(TypeError, match="experience is a Evil; expected tensors, numbers and texts"):
        write_checkpoint(tmp_path / "a", {"experience": Evil()})
    assert not (tmp_path / "a").exists()


def learner(width: int = 2, dtype: torch.dtype = torch.float32, target: bool = True) -> Learner:
    torch.manual_seed(0)
    module = nn.Linear(width, 1).to(dtype)
    return Learner(module, AdamW(0.1), slow_copy(module) if target else None)


def steps(folder: Path, made: Learner, total: int, **settings: Any) -> list[int]:
    run, done = TrainingRun(folder, quiet=True, **settings), []
    for step in run.steps(total, made):
        width = made.module.in_features
        made.descend(made.module(torch.ones(1, width, dtype=made.module.weight.dtype)).sum(), lr=0.1)
        done.append(step)
    return done


def test_the_last_two_checkpoints_are_kept(tmp_path: Path) -> None:
    """Every third of 10 steps and the last: 3, 6, 9, 10. Without the last, the run goes on from 9."""
    steps(tmp_path, learner(), 10, checkpoint_every=3)
    assert Checkpoints(tmp_path).steps() == [9, 10]
    file = Checkpoints(tmp_path).path(10)
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(InputError, match="Without this file a resumed run goes on from step 9"):
        steps(tmp_path, learner(), 10)
    file.unlink()
    assert steps(tmp_path, learner(), 10) == [9]


def test_what_a_kill_left_of_a_checkpoint_is_cleared_away(tmp_path: Path) -> None:
    steps(tmp_path, learner(), 3)
    (tmp_path / "checkpoints" / "step-5.safetensors.part").write_bytes(b"half of")
    assert steps(tmp_path, learner(), 4) == [3]
    assert sorted(os.listdir(tmp_path / "checkpoints")) == ["step-3.safetensors", "step-4.safetensors"]


@pytest.mark.parametrize(
    ("drop", "words"),
    [
        (("module",), "it lacks module"),
        (("optimizer",), "it lacks optimizer"),
        (("module", "weight"), "module lacks weight"),
        (("target", "bias"), "target lacks bias"),
        (("optimizer", "param_groups"), "optimizer lacks param_groups"),
        (("seconds",), "it lacks seconds"),
    ],
)
def test_a_checkpoint_that_lacks_weights_does_not_resume_with_fresh_ones(
    tmp_path: Path, drop: tuple[str, ...], words: str
) -> None:
    steps(tmp_path, learner(), 3)
    state = Checkpoints(tmp_path).latest()
    inner = state
    for key in drop[:-1]:
        inner = inner[key]
    del inner[drop[-1]]
    Checkpoints(tmp_path).save(3, state)
    with pytest.raises(InputError, match=f"{words}; expected a checkpoint of this very run"):
        steps(tmp_path, learner(), 5)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (learner(width=3), r"module/weight is torch.float32 \[1, 2\]; expected torch.float32 \[1, 3\]"),
        (learner(dtype=torch.float64), r"is torch.float32 \[1, 2\]; expected torch.float64 \[1, 2\]"),
        (learner(target=False), "target is there and should not be"),
    ],
)
def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path, other: Learner, words: str) -> None:
    steps(tmp_path, learner(), 3)
    with pytest.raises(InputError, match=words):
        steps(tmp_path, other, 5)


def test_a_metrics_line_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    made = learner()
    run = TrainingRun(tmp_path, quiet=True, checkpoint_every=1)
    for step in run.steps(3, made):
        run.log(step, {"loss": 1.0})
    lines = (tmp_path / "metrics.jsonl").read_bytes().splitlines(True)
    for bad in (b"{loss\n", b"\xff\n", b'{"loss": 1}\n', b"[1]\n"):
        (tmp_path / "metrics.jsonl").write_bytes(lines[0] + bad + lines[2])
        with pytest.raises(InputError, match=r"metrics.jsonl:2: expected a line that a run wrote"):
            steps(tmp_path, learner(), 5)
    assert json.loads(lines[0])["step"] == 0
