"""`turnwise solve` as people and scripts meet it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from turnwise.cli import main
from turnwise.envs.pomdp import POMDP
from turnwise.exact.alpha_policy import load_policy
from turnwise.exact.files.write import write_pomdp

TIGER = """
discount: 0.75
values: reward
states: left right
actions: listen open-left open-right
observations: hear-left hear-right
T: listen
identity
T: open-left
uniform
T: open-right
uniform
O: listen
0.85 0.15
0.15 0.85
O: open-left
uniform
O: open-right
uniform
R: listen : * : * : * -1
R: open-left : left : * : * -100
R: open-left : right : * : * 10
R: open-right : left : * : * 10
R: open-right : right : * : * -100
"""


@pytest.fixture
def tiger(tmp_path: Path) -> Path:
    path = tmp_path / "tiger.pomdp"
    path.write_text(TIGER)
    return path


def solved(capsys: Any, *words: str) -> dict[str, Any]:
    """The one object that `solve` prints."""
    assert main(["solve", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_bounds_of_a_file(tiger: Path, capsys: Any) -> None:
    found = solved(capsys, str(tiger), "--simulate", "500")
    assert found["lower"] - 1e-6 <= 1.93344 <= found["upper"] + 1e-6
    assert found["gap"] == pytest.approx(found["upper"] - found["lower"]) and found["gap"] <= 1e-3
    sizes = {k: found[k] for k in ("states", "actions", "observations", "discount")}
    assert sizes == {"states": 2, "actions": 3, "observations": 2, "discount": 0.75}
    assert found["seconds"] < 30 and found["simulation"]["inside"]


def test_printed_bounds_are_rounded_outwards(tmp_path: Path, capsys: Any) -> None:
    """One state that pays -0.54745725 for ever at discount .95: worth -10.949145, no more and no less."""
    path = tmp_path / "toll.pomdp"
    path.write_text(
        "discount: .95\nvalues: reward\nstates: 1\nactions: 1\nobservations: 1\n"
        "T: 0\n1\nO: 0\n1\nR: 0 : 0 : * : * -0.54745725\n"
    )
    assert main(["solve", str(path)]) == 0
    assert "optimal value between -10.9492 and -10.9491," in capsys.readouterr().out


def test_a_built_in_problem_by_name_in_both_timings(capsys: Any) -> None:
    # tmaze of length 2 at discount .9: 4 * .9^4, and a step sooner where the cue is shown at once
    assert solved(capsys, "t-maze-2")["lower"] == pytest.approx(4 * 0.9**4)
    assert solved(capsys, "t-maze-2", "--initial-observation", "shown")["lower"] == pytest.approx(4 * 0.9**3)


def test_another_discount_horizon_and_ends(tiger: Path, capsys: Any) -> None:
    # three undiscounted steps: listen twice and then open, 2.72; one step is a listening
    found = solved(capsys, str(tiger), "--horizon", "3", "--discount", "1")
    assert found["lower"] == pytest.approx(2.72) and found["states"] == 2 and found["horizon"] == 3
    assert solved(capsys, str(tiger), "--horizon", "1")["upper"] == pytest.approx(-1)
    assert solved(capsys, str(tiger), "--discount", "0.95")["lower"] == pytest.approx(19.3714, abs=1e-3)
    assert solved(capsys, str(tiger), "--ends")["lower"] < solved(capsys, str(tiger))["lower"]


def test_a_problem_of_ones_own_by_name(tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    (tmp_path / "own_bets.py").write_text(
        "def coin():\n"
        "    return dict(states=['heads', 'tails'], actions=['bet'], observations=1, discount=0.5,\n"
        "                transition=lambda s, a: {'heads': 0.5, 'tails': 0.5}, observation=lambda a, s: 0,\n"
        "                reward=lambda s, a: float(s == 'heads'))\n"
    )
    monkeypatch.chdir(tmp_path)
    found = solved(capsys, "own_bets:coin")
    assert found["lower"] == pytest.approx(1.0) and found["problem"] == "coin"  # .5 / (1 - .5)


def test_the_deadline_holds_and_an_honest_word_says_that_nothing_was_searched(
    tmp_path: Path, capsys: Any
) -> None:
    rng = np.random.default_rng(0)
    S, A, O = 160, 4, 8
    t, o = rng.dirichlet(np.full(S, 0.5), (A, S)), rng.dirichlet(np.full(O, 0.5), (A, S))
    p = POMDP.from_arrays(t, o, rng.normal(size=(A, S)), discount=0.999, start=np.full(S, 1 / S), name="big")
    write_pomdp(p, tmp_path / "big.pomdp")
    began = time.perf_counter()
    found = solved(capsys, str(tmp_path / "big.pomdp"), "--deadline", "1")
    assert found["stopped"] == "deadline" and found["seconds"] < 2
    assert time.perf_counter() - began < 6  # reading the file of 100,000 numbers comes first
    assert main(["solve", str(tmp_path / "big.pomdp"), "--deadline", "0.01"]) == 0
    assert "was over before the search began: these are first bounds" in capsys.readouterr().out


def test_limits_of_memory(tiger: Path, capsys: Any) -> None:
    for memory, value in (("deterministic", -4.0), ("stochastic", -4.0)):
        found = solved(capsys, str(tiger), "--memory", memory)
        assert found["value"] == pytest.approx(value, abs=1e-6) and found["upper"] > 1.93
    assert solved(capsys, str(tiger), "--memory", "2", "--starts", "30")["value"] > -2.93


def test_the_folder_holds_the_policy_and_how_it_came_about(tiger: Path, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "run"
    found = solved(capsys, str(tiger), "--out", str(out))
    policy = load_policy(out / "policy.npz")
    assert policy.value(np.full(2, 0.5)) == pytest.approx(found["lower"], abs=1e-9)
    kept = json.loads((out / "solution.json").read_text())
    assert kept["trace"][-1][1:] == pytest.approx([found["lower"], found["upper"]])
    assert kept["graph"]["count"] == len(policy)
    open_loop = {r["name"]: r for r in kept["references"]}["best open-loop policy"]
    assert open_loop["lower"] == pytest.approx(-4, abs=1e-2)  # listening for ever: -1 / (1 - .75)
    for name in ("config.yaml", "env.json", "result.json", "policy.policy", "report.html"):
        assert (out / name).exists()
    assert main(["solve", str(tiger), "--out", str(out)]) == 2
    assert "this one holds another run" in capsys.readouterr().err


def test_a_controller_is_kept_too(tiger: Path, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "run"
    solved(capsys, str(tiger), "--memory", "stochastic", "--out", str(out))
    with np.load(out / "controller.npz") as kept:
        p = kept["probabilities"]
    assert p.shape == (1, 3, 3, 1)
    np.testing.assert_allclose(p.sum((2, 3)), 1)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["nowhere.pomdp"], "neither a file nor a built-in problem"),
        (["{tiger}", "--memory", "much"], "--memory much: expected none, deterministic, stochastic"),
        (["{tiger}", "--memory", "0"], "--memory 0: expected"),
        (["{tiger}", "--initial-observation", "maybe"], "expected shown or none"),
        (["{tiger}", "--initial-observation", "shown"], "observations depend on the action"),
        (["{tiger}", "--deadline", "0"], "--deadline 0"),
        (["{tiger}", "--target-gap", "-1"], "--target-gap -1"),
        (["{tiger}", "--simulate", "1"], "--simulate 1: expected 0, or 2 to 1,000,000"),
        (["{tiger}", "--memory", "2", "--simulate", "10"], "the value of a controller is exact"),
        (["{broken}"], "broken.pomdp:13"),
        (["corridor", "--memory", "deterministic"], "no such policy is sure to end"),
        (["rock-sample-7-8", "--memory", "2"], "225810 unknowns here; at most 4000"),
        (["{tiger}", "--discount", "1.2"], "--discount 1.2: expected a number from 0 to 1"),
        (["{tiger}", "--horizon", "0"], "--horizon 0: expected 1 or more"),
        (["{tiger}", "--ends", "--continuing"], "expected ends or continuing, and not both"),
        (
            ["t-maze-2", "--discount", "1", "--continuing"],
            "a policy that never ends is as good as any",
        ),
        (["nowhere:clinic"], "nowhere:clinic: expected a module in "),
    ],
)
def test_wrong_input_is_one_line(
    words: list[str], expected: str, tiger: Path, tmp_path: Path, capsys: Any
) -> None:
    broken = tmp_path / "broken.pomdp"
    broken.write_text(TIGER.replace("0.85 0.15\n0.15", "0.85 0.25\n0.15"))
    out = tmp_path / "never"
    args = [w.format(tiger=tiger, broken=broken) for w in words]
    assert main(["solve", *args, "--out", str(out)]) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert expected in error[-1], error
    assert not out.exists() or not any(out.iterdir())


def test_a_folder_that_cannot_be_made_is_refused_before_solving(
    tiger: Path, tmp_path: Path, capsys: Any
) -> None:
    assert main(["solve", str(tiger), "--out", str(tiger / "x"), "--json"]) == 2
    said = capsys.readouterr()
    assert "expected a folder that can be written into" in said.err and said.out == ""


class PressedWhenSearching(io.StringIO):
    """Ctrl-C, a real one, as soon as the search says how far it is."""

    pressed = False

    def write(self, text: str) -> int:
        if "left at most" in text and not self.pressed:
            self.pressed = True
            os.kill(os.getpid(), signal.SIGINT)
        return super().write(text)


def test_ctrl_c_gives_the_best_so_far(capsys: Any) -> None:
    words = ["solve", "rock-sample-5-5", "--target-gap", "0", "--deadline", "100", "--json"]
    said = PressedWhenSearching()
    with contextlib.redirect_stderr(said):
        assert main(words) == 0
    found = json.loads(capsys.readouterr().out)
    assert said.pressed and found["stopped"] == "interrupted"
    assert found["lower"] <= 19.24 <= found["upper"]
