"""turnwise data and train on the files that people have: paths as typed, bad rows, missing outcomes."""

import json
from typing import Any

import pytest
import yaml

from turnwise.cli import main
from turnwise.data.files.feedback import read_feedback
from turnwise.data.files.logs import read_logs

TINY = [
    *("--width", "16", "--layers", "1", "--heads", "2", "--context", "96", "--vocab", "300"),
    *("--epochs", "1", "--heldout", "0.2"),
]
PAIR = {"prompt": "Why?", "chosen": "Because.", "rejected": "No."}


def talk(i: int, outcome: float | None) -> dict[str, Any]:
    said = [{"from": "customer", "value": f"It fails, case {i}."}, {"from": "rep", "value": f"Try {i % 3}."}]
    return {"id": f"t{i}", "conversations": said, "score": outcome}


ROLES = ["--map-role", "customer=user", "--map-role", "rep=assistant"]
READING = [*ROLES, "--outcome-column", "score"]


@pytest.fixture
def logs(tmp_path):
    """A list of 40 conversations, 10 of them with an outcome: half of those are 1, half are 0."""
    path = tmp_path / "logs.json"
    path.write_text(json.dumps([talk(i, i % 2 if i < 10 else None) for i in range(40)]))
    return path


def said(capsys, *words, code=0):
    assert main([str(word) for word in words]) == code
    return capsys.readouterr()


def test_a_path_is_typed_by_itself(logs, tmp_path, capsys):
    for words in ([logs], ["--logs", logs]):
        assert (
            json.loads(said(capsys, "data", "check", *words, *READING, "--json").out)["conversations"] == 40
        )
    assert "It fails, case 7" in said(capsys, "data", "show", *READING, "--id", "t7", logs).out
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text(json.dumps(PAIR))
    for words in ([pairs], ["--feedback", pairs]):
        assert json.loads(said(capsys, "data", "check", *words, "--json").out)["kind"] == "pairs"


def test_check_counts_missing_outcomes_and_gives_the_mean_of_the_others(logs, capsys):
    """5 of 10 rated conversations end well; as zeros the other 30 would have made it 0.125."""
    card = json.loads(said(capsys, "data", "check", logs, *READING, "--json").out)
    assert (card["rated"], card["missing_outcomes"], card["return"]["mean"]) == (10, 30, 0.5)
    assert "30 of 40 conversations (75%) ended without an outcome, which is not 0" in card["warnings"][0]
    out = said(capsys, "data", "check", logs, *READING, "--missing-outcome", "leave-out").out
    assert "30 conversations without an outcome were left out." in out
    card = json.loads(said(capsys, "data", "check", logs, *READING, "--missing-outcome", "-1", "--json").out)
    assert card["return"]["mean"] == (5 - 30) / 40
    err = said(capsys, "data", "check", logs, *READING, "--missing-outcome", "none", code=2).err
    assert "--missing-outcome none: expected leave-out, or the number that" in err
    err = said(capsys, "data", "check", logs, *ROLES, "--outcome-column", "points", code=2).err
    assert f"--outcome-column points: expected a column of {logs}; no conversation has a value" in err


def test_values_are_refused_until_missing_outcomes_are_decided(logs, tmp_path, capsys):
    """A clone needs no outcome, and learns from all; the best of them and values need them."""
    clone = tmp_path / "bc"
    train = ["train", "bc", "--logs", logs, *READING, *TINY]
    asked = (
        "--missing-outcome: expected leave-out, or a number that they count as: 30 of 40 conversations ended"
    )
    assert asked in said(capsys, *train, "--keep-top", "0.5", "--out", tmp_path / "top", code=2).err
    said(capsys, *train, "--out", clone)
    values = ["train", "mc", "--logs", logs, "--policy", clone, "--epochs", "1"]
    assert asked in said(capsys, *values, *READING, "--out", tmp_path / "mc", code=2).err
    assert not (tmp_path / "mc").exists()
    nothing = said(capsys, *values, *ROLES, "--out", tmp_path / "mc", code=2).err
    assert (
        "expected an outcome of conversations, or rewards of messages, to learn from; found neither"
        in nothing
    )
    said(capsys, *values, *READING, "--missing-outcome", "0", "--out", tmp_path / "mc")
    config = yaml.safe_load((tmp_path / "mc" / "config.yaml").read_text())
    assert (config["without_outcome"], config["missing_outcome"]) == (30, 0.0)
    assert "30 conversations without an outcome count as 0." in (tmp_path / "mc" / "report.html").read_text()


def test_a_few_bad_rows_cost_no_run(logs, tmp_path, capsys):
    rows = json.loads(logs.read_text())
    rows[3]["conversations"] = "?"
    rows[5]["conversations"][0]["from"] = "manager"
    path, out = tmp_path / "some.jsonl", tmp_path / "bc"
    path.write_text("\n".join(map(json.dumps, rows)) + "\n{broken")
    train = ["train", "bc", "--logs", path, *READING, *TINY, "--out", out]
    err = said(capsys, *train, code=2).err
    assert (
        f"{path}: expected 41 rows that are each a conversation; found 3 that are not (skip_bad leaves" in err
    )
    assert all(f"  {path}:{line}: " in err for line in (4, 6, 41))
    assert "3 bad rows were left out; the first: " in said(capsys, *train, "--skip-bad").err
    assert yaml.safe_load((out / "config.yaml").read_text())["skipped"] == 3
    assert json.loads((out / "card.json").read_text())["conversations"] == 38
    assert "3 bad rows were left out; the first: " in (out / "report.html").read_text()


def test_convert_writes_our_form(logs, tmp_path, capsys):
    out = tmp_path / "ours.jsonl.gz"
    for words in ([logs, out], ["--out", out, "--overwrite", logs]):
        assert f"40 conversations written to {out}" in said(capsys, "data", "convert", *words, *READING).out
    ours = read_logs(out)
    assert ours == read_logs(logs, outcome_column="score", map_role={"customer": "user", "rep": "assistant"})
    assert [d.rated_by for d in ours[8:12]] == ["outcome", "outcome", "nothing", "nothing"]
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("prompt,chosen,rejected\nWhy?,Because.,No.\nHow?,So.\n")
    told = said(capsys, "data", "convert", pairs, tmp_path / "pairs.jsonl", "--skip-bad", "--json")
    assert json.loads(told.out)["rows"] == 1 and "1 bad row was left out; the first: " in told.err
    assert read_feedback(tmp_path / "pairs.jsonl")[0].chosen == "Because."
    assert "expected a name that ends in .jsonl" in said(capsys, "data", "convert", logs, "x.csv", code=2).err
    assert "found one that exists" in said(capsys, "data", "convert", logs, out, *READING, code=2).err


def test_convert_of_a_model_says_what_is_wrong_with_it(tmp_path, capsys):
    """What is right with one is tested beside the helper (tests/models/lm/test_gguf.py)."""
    (tmp_path / "logs.gguf").write_text("{}")
    words = ["data", "convert", tmp_path / "logs.gguf", tmp_path / "model"]
    assert "expected a GGUF file, which begins with GGUF" in said(capsys, *words, code=2).err
    assert "expected --out and --overwrite alone with it" in said(capsys, *words, "--skip-bad", code=2).err
    assert not (tmp_path / "model").exists()
