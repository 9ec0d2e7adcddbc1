"""A run folder as its owner meets it: killed, started twice, moved, copied, damaged, resumed at its end."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import turnwise as tw
from turnwise.cli import main
from turnwise.run.errors import InputError, SettingError
from turnwise.run.files.lock import LOCK, expect_unlocked, locked
from turnwise.run.files.whole import whole_files, whole_folder
from turnwise.run.folder import read_config

TINY = {"width": 16, "layers": 1, "heads": 2, "context": 128}


def talks(n: int = 12) -> list[dict[str, Any]]:
    words = ("red", "green", "blue")
    return [
        {
            "id": str(i),
            "messages": [
                {"role": "user", "content": f"say {words[i % 3]}"},
                {"role": "assistant", "content": words[i % 3 if i % 4 else 0]},
            ],
            "outcome": float(i % 4 > 0),
        }
        for i in range(n)
    ]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with logs, a clone, and a critic on it."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "logs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in talks()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TURNWISE_REHEARSAL", "1")
        tw.fit(tw.BC(), str(folder / "logs.jsonl"), out=folder / "bc", quiet=True, **TINY)
        critic(folder)
        yield folder


def critic(folder: Path, policy: str = "bc", **more: Any) -> Any:
    logs, begun_from = str(folder / "logs.jsonl"), str(folder / policy)
    config = tw.MC(epochs=more.pop("epochs", 3.0))
    return tw.fit(config, logs, policy=begun_from, out=folder / "mc", quiet=True, **more)


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy of it, elsewhere."""
    shutil.copytree(made, tmp_path / "moved")
    return tmp_path / "moved"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def test_a_run_that_was_killed_while_it_saved_is_not_taken_for_its_clone(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All of `policy/` is there but its critic: it used to load, and to be measured, as the plain clone."""
    run = folder / "mc"
    (run / "result.json").unlink()
    os.rename(run / "policy", run / "policy.part")
    shutil.rmtree(run / "policy.part" / "critic")
    words = "mc: this run has not ended; resume it, with the settings that it began with"
    for use in (
        tw.load,
        lambda r: tw.evaluate(r, tw.HelpDesk()),
        lambda r: tw.fit(tw.MC(), talks(), policy=r),
    ):
        with pytest.raises(InputError, match=words):
            use(run)
    with pytest.raises(InputError, match=words):
        tw.fit(tw.BC(), talks(), model=str(run), quiet=True)
    assert main(["evaluate", str(run), "--task", "helpdesk"]) == 2
    assert words in " ".join(capsys.readouterr().err.split())
    assert main(["report", str(run)]) == 0
    assert "this run has not ended" in " ".join(capsys.readouterr().err.split())
    assert "This run has not ended" in (run / "report.html").read_text()
    assert critic(folder, resume=True).agent.critic is not None
    assert not list(run.glob("*.part")) and tw.load(run).agent.critic is not None
    assert "This run has not ended" not in (run / "report.html").read_text()


def test_a_run_that_died_before_its_settings_does_not_block_its_folder(folder: Path) -> None:
    run = folder / "mc"
    shutil.rmtree(run)
    run.mkdir()
    for name in (LOCK, "env.json", "config.yaml.part"):
        (run / name).write_text('{"pid": ')
    critic(folder)
    assert {f.name for f in run.iterdir()}.isdisjoint({LOCK, "config.yaml.part"})


def test_a_second_start_with_the_same_folder_is_refused_while_the_first_writes(folder: Path) -> None:
    before = contents(folder / "mc")
    words = rf"mc'; expected a folder that no other run writes; process {os.getpid()} on .*, is at work on it"
    with locked(folder / "mc"):
        with pytest.raises(SettingError, match=words):
            critic(folder, resume=True)
        (folder / "mc" / "result.json").unlink()
        with pytest.raises(InputError, match=rf"has not ended; process {os.getpid()} .* is at work on it"):
            tw.load(folder / "mc")
    (folder / "mc" / "result.json").write_bytes(before["result.json"])
    assert contents(folder / "mc") == before


HOLD = "import sys, time; from pathlib import Path; from turnwise.run.files.lock import locked\n" + (
    "with locked(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
)


@pytest.mark.parametrize("system", [True, False])
def test_the_lock_of_a_killed_process_is_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, system: bool
) -> None:
    """By the system's lock, and where the file system has none (as some that machines share)."""
    import fcntl

    def none(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"held\n"
        if not system:
            monkeypatch.setattr(fcntl, "flock", none)
        with pytest.raises(SettingError, match=f"process {process.pid} on"):
            expect_unlocked(tmp_path)
        with pytest.raises(SettingError, match=f"process {process.pid} on"), locked(tmp_path):
            pass
        process.send_signal(signal.SIGKILL)
    assert (tmp_path / LOCK).exists()
    with locked(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()
    assert not (tmp_path / LOCK).exists()
    if not system:  # of another machine's process nobody here knows whether it lives
        about = {"pid": process.pid, "host": "elsewhere", "since": "noon"}
        (tmp_path / LOCK).write_text(json.dumps(about))
        with pytest.raises(SettingError, match="on elsewhere, since noon, is at work on it"):
            expect_unlocked(tmp_path)


def test_a_run_is_moved_with_its_logs_and_its_policy_and_goes_on(folder: Path) -> None:
    """Settings say where things lay; what they are is in their digests. The result is the same to the bit."""
    was = contents(folder / "mc")
    for name in ("result.json", "checkpoints"):
        path = folder / "mc" / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    os.rename(folder / "bc", folder / "clone")
    made = critic(folder, "clone", resume=True)
    now = contents(folder / "mc")
    for name in ("policy/critic/heads.safetensors", "policy/model.safetensors", "result.json"):
        same = now[name] == was[name]
        assert same or name == "result.json", name  # which says how long it took
    assert made.result["policy"] == str(folder / "mc" / "policy")
    assert tw.load(folder / "mc").result["run"] == str(folder / "mc")
    assert read_config(folder / "mc")["policy"] == str(folder / "clone")
    assert "changes" not in read_config(folder / "mc")


def test_another_policy_in_the_same_place_is_not_the_one_that_the_run_stands_on(folder: Path) -> None:
    shutil.rmtree(folder / "bc")
    tw.fit(tw.BC(), talks(), out=folder / "bc", quiet=True, seed=1, **TINY)
    (folder / "mc" / "result.json").unlink()
    with pytest.raises(InputError, match=r"policy_content was '\w+' and is '\w+' now; expected the settings"):
        critic(folder, resume=True)


def test_a_flipped_bit_in_a_saved_policy_is_refused(folder: Path) -> None:
    for name in ("model.safetensors", "critic/heads.safetensors", "tokenizer.json"):
        file = folder / "mc" / "policy" / name
        whole = file.read_bytes()
        file.write_bytes(whole[:-9] + bytes([whole[-9] ^ 4]) + whole[-8:])
        with pytest.raises(InputError, match=rf"{name} has changed since it was saved; expected the file as"):
            tw.load(folder / "mc")
        file.unlink()
        with pytest.raises(InputError, match=rf"{name} is missing; expected all files that were saved"):
            tw.load(folder / "mc")
        file.write_bytes(whole)
    assert tw.load(folder / "mc").agent.critic is not None


def test_resuming_a_run_that_has_ended_changes_nothing(folder: Path) -> None:
    """Not even what `evaluate` chose: it used to be saved anew, with the strength that training set."""
    made = tw.load(folder / "mc")
    made.agent.with_acting(beta=7.5).save_acting(folder / "mc" / "policy")
    before = contents(folder)
    again = critic(folder, resume=True)
    assert again.agent.acting.beta == 7.5 and again.result == made.result
    # The folder is a copy: its settings say where it was made, and then where it lies.
    now = contents(folder) | {"mc/config.yaml": before["mc/config.yaml"]}
    assert now == before
    assert critic(folder, resume=True).result == made.result
    assert read_config(folder / "mc")["logs"] == str(folder / "logs.jsonl")


def test_a_run_that_ended_and_goes_on_has_no_measurement_of_what_it_was(folder: Path) -> None:
    (folder / "mc" / "evaluation.json").write_text("{}")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("TURNWISE_REHEARSAL")
        with pytest.raises(InputError, match="rehearsal was True and is none now"):
            critic(folder, resume=True)
    assert (folder / "mc" / "evaluation.json").exists()
    critic(folder, resume=True, epochs=5.0)
    assert not (folder / "mc" / "evaluation.json").exists()
    assert read_config(folder / "mc")["changes"] == [{"after_step": 2, "epochs": [3.0, 5.0]}]


def test_an_agent_is_measured_in_the_problem_that_it_learnt_after_a_move(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The problem's file is gone; the run has a copy."""
    monkeypatch.setenv("TURNWISE_REHEARSAL", "1")
    problem = tmp_path / "own.pomdp"
    problem.write_text(
        "discount: 0.9\nvalues: reward\nstates: 2\nactions: 2\nobservations: 2\n"
        "T: * identity\nO: * identity\nR: 0 : 0 : * : * 1\nR: 1 : 1 : * : * 1\n"
    )
    run, moved = tmp_path / "run", tmp_path / "elsewhere"
    tw.fit(tw.PPO(lanes=2, rollout=4), str(problem), out=run, quiet=True, width=8)
    os.rename(run, moved)
    problem.unlink()
    assert tw.evaluate(moved, quiet=True, episodes=4).episodes == 4


def test_a_folder_is_written_whole_or_stays_what_it_was(tmp_path: Path) -> None:
    folder = tmp_path / "policy"
    for text in ("one", "two"):
        with whole_folder(folder, "mark") as part:
            (part / "mark").write_text(text)
            (part / text).mkdir()
    with pytest.raises(RuntimeError), whole_folder(folder, "mark") as part:
        (part / "mark").write_text("half")
        raise RuntimeError
    assert (folder / "mark").read_text() == "two"
    assert sorted(f.name for f in folder.iterdir()) == ["mark", "two"]
    assert os.listdir(tmp_path) == ["policy"]


def test_a_policy_is_not_saved_over_other_files(made: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(InputError, match="expected a new folder, or one that holds a saved model"):
        tw.load(made / "bc").save(tmp_path)
    assert os.listdir(tmp_path) == ["thesis.tex"]
    tw.load(made / "bc").save(tmp_path / "new")
    tw.load(made / "mc").save(tmp_path / "new")
    assert tw.load(tmp_path / "new").agent.critic is not None


def test_files_that_belong_together_have_no_head_while_they_change(tmp_path: Path) -> None:
    whole_files(tmp_path, {"a": "1", "b": "1", "head": "1"}, last="head")
    (tmp_path / "b.part").mkdir()  # so that b cannot be written
    with pytest.raises(OSError, match=r"b\.part"):
        whole_files(tmp_path, {"head": "2", "a": None, "b": "2"}, last="head")
    assert {f.name: f.read_text() for f in tmp_path.iterdir() if f.is_file()} == {"b": "1"}
