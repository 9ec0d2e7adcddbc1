"""Run folders that are incomplete, broken, or do not say what they are."""

from __future__ import annotations

import json

import pytest
import yaml

from turnwise.evaluation.pages.report import write_report
from turnwise.run.errors import InputError


def test_a_run_that_does_not_say_its_kind_gets_no_guess(run, read, write_evaluation):
    """Settings and files look like those of agents, replies and logs; without a family none counts."""
    (run / "algorithm.json").unlink()
    config = {"algorithm": "dpo", "env": "tiger", "logs": "logs.jsonl"}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    write_evaluation(run)
    page = read(run)
    assert "This run does not say what kind of run it is" in page.text
    assert "reaches a mean return" not in page.text and 'id="conversations"' not in page.html
    assert "loss" in page.text and "env tiger" in page.text


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        ({"family": "talk"}, r"algorithm.json: family is 'talk'; expected one of logs, "),
        ({"metrics": ["loss"]}, r"algorithm.json: metrics: expected an object"),
        ({"metrics": {"td": {"unit": "nats"}}}, r"algorithm.json: metrics: td: expected what \(text\)"),
        ({"metrics": {"td": {"what": "TD", "loss": 1}}}, r"metrics: td: expected .* loss \(true or false\)"),
    ],
)
def test_facts_of_the_wrong_form_are_named(run, facts, says):
    (run / "algorithm.json").write_text(json.dumps(facts))
    with pytest.raises(InputError, match=says):
        write_report(run)


def test_failed_report_leaves_the_old_one(run, conversation):
    before = write_report(run).read_bytes()
    (run / "conversations.jsonl").write_text('{"id": "a"}\n')
    with pytest.raises(InputError, match=r"conversations.jsonl: conversation 1: messages: expected"):
        write_report(run)
    assert (run / "report.html").read_bytes() == before
    assert not [p for p in run.iterdir() if "part" in p.name]


@pytest.mark.parametrize(
    ("file", "text", "says"),
    [
        ("metrics.jsonl", '{"step": 1}\n{"step": \n{"step": 3}\n', r"metrics\.jsonl:2: not JSON"),
        ("evaluation.json", "[1]", r"evaluation\.json: expected one JSON object"),
        ("config.yaml", "- a\n", r"config\.yaml: expected settings by name"),
        ("card.json", '{"conversations": 3}', r"card\.json: no 'agent_turns'"),
    ],
)
def test_broken_files_are_named(run, file, text, says):
    (run / file).write_text(text)
    with pytest.raises(InputError, match=says):
        write_report(run)


def test_a_folder_of_something_else_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"neither a run .* nor a comparison"):
        write_report(tmp_path)
    assert not list(tmp_path.iterdir())


def test_interrupted_last_line_is_left_out(run, read):
    with (run / "metrics.jsonl").open("a") as f:
        f.write('{"step": 400, "lo')
    assert "up to step 300" in read(run).text
