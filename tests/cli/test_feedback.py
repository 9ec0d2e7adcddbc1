"""`turnwise data check --feedback`: what is printed for people, for scripts, and what is refused."""

import json

import pytest

from turnwise.cli import main

ROW = {"prompt": "Why?", "completion": "So.", "label": True, "score": 2, "annotator": "[b]Ann"}


def test_check_feedback(tmp_path, capsys):
    path = tmp_path / "f.jsonl"
    path.write_text(json.dumps(ROW) + "\n")
    assert main(["data", "check", "--feedback", str(path)]) == 2
    assert (
        "f.jsonl:1: expected columns of one kind, or the setting kind to say which is meant"
        in capsys.readouterr().err
    )
    assert main(["data", "check", "--feedback", str(path), "--kind", "scores"]) == 0
    assert "the busiest, [b]Ann, gave 1 of 1" in capsys.readouterr().out, "names are no markup"
    assert main(["data", "check", "--feedback", str(path), "--kind", "likes", "--json"]) == 0
    said = capsys.readouterr()
    card = json.loads(said.out)
    assert (card["file"], card["kind"], card["rows"], card["warnings"]) == (str(path), "likes", 1, [])
    assert "1 like" in said.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "expected what is to be read: a path by itself, or after --logs or --feedback"),
        (["x", "y"], "expected one logs, by itself or after --logs; found x and y"),
        (["--logs", "x", "--feedback", "y"], "expected either --logs or --feedback; found both"),
        (["--logs", "x", "--kind", "likes"], "--kind likes: expected --feedback with it; found --logs"),
        (
            ["--feedback", "x.jsonl", "--agent-role", "user"],
            "--agent-role: expected logs with it; found feedback",
        ),
        (["--feedback", "x.jsonl"], "x.jsonl: expected a file, a folder or a dataset; found no such file"),
    ],
)
def test_words_that_do_not_go_together(words, said, capsys):
    assert main(["data", "check", *words]) == 2
    assert said in capsys.readouterr().err
