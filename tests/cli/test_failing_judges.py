"""A judge that times out, is silent or returns no number: what the terminal, the log and the page say."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

import turnwise as tw
from turnwise.cli import main

TALK = [{"role": "user", "content": "yes or no"}, {"role": "assistant", "content": "yes"}]
JUDGE = '''
calls = 0

def judge(prompts, completions, **_):
    """Its 6th call, the fifth of training, times out as often as FAIL says; it is silent on a prompt."""
    global calls
    calls += 1
    if {fails}:
        raise TimeoutError("no answer in 30 s")
    return [({value}) if p == "b?" else float(len(c)) for p, c in zip(prompts, completions)]
'''


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("judges") / "bc"
    rows = [{"messages": TALK, "id": str(i)} for i in range(8)]
    size = {"width": 16, "layers": 1, "heads": 2, "context": 64, "vocab": 300}
    tw.fit(tw.BC(epochs=1.0), rows, quiet=True, heldout=0.0, out=out, **size)
    return out


@pytest.fixture
def words(clone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A run of 8 steps of 2 prompts, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    rows = [json.dumps({"prompt": p}) for p in ("a?", "b?", "c?", "d?")]
    Path("prompts.jsonl").write_text("\n".join(rows))
    typed = "train rloo --prompts prompts.jsonl --out run --heldout 0 --steps 8 --prompts-per-step 2"
    typed += " --group 2 --max-new-tokens 4 --evaluation-replies 1 --reward-wait 0"
    return [*shlex.split(typed), "--policy", str(clone)]


def test_a_judge_that_times_out_for_long_leaves_a_checkpoint(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Calls 6, 7 and 8 fail, the fifth step's with two retries; the resumed run is asked anew."""
    Path("late.py").write_text(JUDGE.format(fails="5 < calls < 9", value="0.0"))
    words += ["--reward", "late:judge"]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert said.count("It is asked again in 0 s") == 2
    assert "step 5 of 8: judge failed with TimeoutError: no answer in 30 s (late.py:" in said
    assert "turnwise: run has a checkpoint of step 4: a resumed run goes on there." in said
    assert main([*words, "--resume"]) == 0
    steps = [json.loads(x)["step"] for x in Path("run/metrics.jsonl").read_text().splitlines()]
    assert steps == [0, 7]


def test_a_judge_that_is_silent_on_a_prompt_leaves_it_out(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Eight steps of two prompts draw each of four prompts four times."""
    Path("silent.py").write_text(JUDGE.format(fails="calls == 6", value="None"))
    assert main([*words, "--reward", "silent:judge"]) == 0
    said = capsys.readouterr()
    assert "the reward was silent on 4 prompts, which were left out" in said.out
    assert said.err.count("It is asked again") == 1
    page = Path("run/report.html").read_text()
    assert "had no opinion of some reply to 4 of the prompts that were drawn" in page


@pytest.mark.parametrize("value", ["float('nan')", "float('inf')"])
def test_a_reward_that_is_no_number_is_named_with_its_step_and_prompt(
    value: str, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """In the first call that has the prompt: in the trial, or in one of the first two steps."""
    name = f"broken_{value[7:10]}"
    Path(f"{name}.py").write_text(JUDGE.format(fails="False", value=f"{value} if calls > 1 else 0.0"))
    assert main([*words, "--reward", f"{name}:judge"]) == 2
    said = capsys.readouterr().err
    assert " of 8: judge: expected a list of finite numbers or None; found " + value[7:10] in said
    assert "to the prompt 'b?'" in said
