"""The page of a policy from logs: what it says, and what it admits to be missing."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    ("file", "says"),
    [
        ("config.yaml", "No settings: config.yaml is in no run folder."),
        ("env.json", "The command is not recorded"),
        ("metrics.jsonl", "No learning curves: metrics.jsonl is not in this run’s folder"),
        ("card.json", "No data card: card.json is in no run folder"),
        ("evaluation.json", "There is no estimate of this policy’s worth yet."),
        ("conversations.jsonl", "No conversations: conversations.jsonl is not in this run’s folder"),
    ],
)
def test_missing_parts_are_named(run, file, says, read, write_evaluation):
    write_evaluation(run)
    (run / file).unlink()
    assert says in read(run).text


def test_a_run_without_a_folder_is_named(tmp_path, read, write_comparison):
    page = read(write_comparison(tmp_path / "c", runs={"ilql": "gone"}))
    assert "The folder gone of this run is not there." in page.text
    assert page.row("ILQL").startswith("ILQL 0.360")  # its evaluation is still worth showing


def test_nothing_is_called_missing_where_all_is_there(run, read, write_evaluation):
    write_evaluation(run)
    page = read(run)
    assert 'class="missing"' not in page.html and "no estimate" not in page.text


def test_single_run_stands_beside_its_logs_and_the_optimum(run, read, write_evaluation):
    """The logs' mean return is the behaviour policy's: (0.36 + 0.3) / (0.5675 + 0.3) = 76%."""
    write_evaluation(run)
    page = read(run)
    assert page.row("ILQL") == "ILQL 0.360 0.324 to 0.396 76% 80% 4.2 2,000"
    assert page.row("exact optimum").endswith("0.5675 exact")
    assert page.row("behaviour policy").endswith("−0.300 −0.320 to −0.280")
    assert "turnwise train ilql --seed 7" in page.text
    write_evaluation(run, references=[])
    assert "No optimum is known for this task" in read(run).text


def test_without_a_simulator_values_are_no_return(lone):
    """The last held-out loss is 3.2 - 300/150 = 1.2; Q and V are called the critic's."""
    assert "There is no estimate of this policy’s worth yet." in lone.text
    assert "reaches a mean return" not in lone.text and 'class="plot" viewBox="0 0 900' not in lone.html
    assert lone.row("loss").startswith("loss 1.20 a loss, on logged conversations kept from training")
    assert lone.row("loss").endswith("lower predicts them better; unit: nats per token")
    q = "Q 0.300 measured on logged conversations kept from training; not what the policy would earn"
    assert (
        lone.row("Q") == f"{q}; unit: units of return"
        and "Values (Q, V) are the critic’s own predictions." in lone.text
    )
    assert "what the policies learn from, not what they achieve" in lone.text


def test_settings_are_split_into_shared_and_own(page):
    """`beta` is ILQL's alone and stands in the table of differences; `width` is everybody's."""
    assert page.row("ILQL").startswith("ILQL 0.360")
    differs = page.html[page.html.index("Different between runs") :]
    assert "<td>8.0</td>" in differs and "<td>ilql</td>" in differs
    assert "The same in all logs logs/desk-2.jsonl seed 7 width 128" in page.text
    assert "packages torch 2.9.1" in page.text and "turnwise train ilql --seed 7" in page.text


def test_data_card_is_shown_once_for_equal_logs(page):
    """Minus signs of figures are typographic; the hyphen in the file's name stays."""
    text = page.text
    assert text.count("6,000, 300 of them held out") == 1
    assert "desk-2.jsonl" in text and "−0.3 on average (95% interval −0.32 to −0.28), from −1.35 to 1" in text


def test_declared_metrics_are_explained(lone):
    assert "Logged as q ; unit: units of return." in lone.text
    assert "Logged as loss ; a loss; unit: nats per token." in lone.text


def test_the_logs_at_hand_stand_for_what_a_task_knows_of_its_own(run, write_evaluation, read):
    """Of two behaviour policies the one that wrote these logs is the floor: (0.36 + 0.3) / (0.5675 + 0.3)."""
    known = {"name": "logs of its own", "role": "behaviour", "mean": -0.3172}
    optimum = {"name": "exact optimum", "role": "optimum", "mean": 0.5675, "low": None, "high": None}
    write_evaluation(run, references=[known, optimum])
    page = read(run)
    row = page.row("behaviour policy")
    assert "logged conversations; known of the task: logs of its own −0.3172 −0.300 −0.320 to −0.280" in row
    assert "76% of the way from the behaviour policy to the optimum" in page.text
