"""A solved run acts and is measured, like everything that was trained."""

from __future__ import annotations

from pathlib import Path

import pytest

import turnwise as tw
from turnwise.cli import main
from turnwise.envs.problems.classics import tiger
from turnwise.run.errors import InputError


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("solved") / "tiger"
    tw.solve("tiger", out=folder, deadline=5)
    return folder


def test_a_solved_run_is_loaded_and_acts(run: Path) -> None:
    found = tw.load(run)
    assert isinstance(found, tw.Solved) and found.lower == pytest.approx(19.371, abs=1e-2)
    player = found.player()
    assert player.act() == 0 and player.act("tiger-left") == 0 and player.act("tiger-left") == 2
    assert player.belief[0] == pytest.approx(0.97, abs=1e-2)


def test_it_earns_what_is_proved_of_it(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(run), "--episodes", "400"]) == 0
    said = capsys.readouterr().out
    assert "this policy is worth 19.3" in said and "the mean is within that" in said
    assert "the best policy with memory is worth 19.3" in said and "actions at random: -" in said
    assert "In 400 episodes of tiger the policy earned" in (run / "report.html").read_text()
    again = tw.evaluate(tw.load(run), episodes=400)
    assert f"{again.mean:.4g}" in said and not again.result["above"] and not again.result["below"]


def test_a_policy_of_another_solver_beside_certified_bounds(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alone = tmp_path / "appl.policy"
    alone.write_bytes((run / "policy.policy").read_bytes())
    assert main(["evaluate", str(alone), "--env", "tiger", "--episodes", "200"]) == 0
    said = capsys.readouterr()
    assert "this policy is worth 19.3" in said.out and "nothing is written" in said.err
    assert main(["evaluate", str(alone), "--episodes", "200"]) == 2
    assert "expected the environment to measure it in" in capsys.readouterr().err
    assert main(["evaluate", str(alone), "--env", "cheese", "--episodes", "200"]) == 2
    assert "2 states and at least" in capsys.readouterr().err
    with pytest.raises(InputError, match="problem is not known"):
        tw.load(alone).player()  # type: ignore[union-attr]
    assert tw.load(run / "policy.policy").player().act() == 0  # type: ignore[union-attr]  # beside its problem


def test_a_controller_and_a_horizon_are_measured_too(tmp_path: Path) -> None:
    tw.solve("tiger", out=tmp_path / "two", memory="2", starts=4)
    two = tw.evaluate(tmp_path / "two", episodes=300)
    assert not two.result["below"] and two.result["value"]["lower"] == two.result["value"]["upper"]
    tw.solve(tiger(), out=tmp_path / "three", horizon=3, discount=1, deadline=5)
    three = tw.evaluate(tmp_path / "three", episodes=2000)
    assert abs(three.mean - 2.72) < 3.5 * three.result["standard_error"]
