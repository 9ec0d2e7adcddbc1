"""The result of a comparison: its sentence, its table, and the roles that both rest on."""

from __future__ import annotations

import re

import pytest

from turnwise.evaluation.pages.report import write_report
from turnwise.run.errors import InputError


def test_answer_comes_with_figures(page):
    """(0.36 + 0.30) / (0.5675 + 0.30) = 0.761: 76% of the way from BC to the optimum."""
    text = page.text
    assert "ILQL reaches a mean return of 0.360 (95% interval 0.324 to 0.396)" in re.sub(r" +", " ", text)
    assert "against −0.300 for BC, −0.310 for the behaviour policy and 0.5675 for the exact optimum" in text
    assert "76% of the way from BC to the optimum." in text
    assert "Its interval lies apart from those of MC (0.140 to 0.224) and BC (−0.340 to −0.260)." in text
    for asked in ("HelpDesk", "Learn a better desk.", "turnwise demo --seed 7", "task helpdesk", "seed 7"):
        assert asked in text


def test_overlapping_intervals_are_not_a_victory(tmp_path, read, write_comparison, three_rows):
    rows = [three_rows[0] | {"low": -0.5, "high": 0.33}, three_rows[1]]
    text = read(write_comparison(tmp_path / "c", rows=rows, runs={})).text
    assert "Its interval overlaps that of BC (−0.500 to 0.330)" in text
    assert "so these conversations do not settle which is better" in text
    assert "lies apart" not in text


@pytest.mark.parametrize("role", [None, "baseline", "method"])
def test_names_do_not_make_an_optimum(tmp_path, role, read, write_comparison):
    """By their names both would be the optimum: (0.3 - 0.1) / (0.2 - 0.1) = "200% of the way from BC to it".

    BC is a baseline only by its role, and its name is no role either.
    """
    references = [
        {"name": "hand-optimised rules", "mean": 0.2, "role": role},
        {"name": "Optimist (a rule)", "mean": 0.2, "role": role},
    ]
    rows = [
        {"name": "BC", "mean": 0.1, "low": 0.05, "high": 0.15},
        {"name": "ILQL", "mean": 0.3, "low": 0.25, "high": 0.35},
    ]
    page = read(write_comparison(tmp_path / "c", rows=rows, references=references, runs={}))
    assert "of the way" not in page.text and "Gap closed" not in page.text and "200%" not in page.text
    assert "No optimum is known for this task" in page.text
    assert page.row("hand-optimised rules") == "hand-optimised rules 0.2 not given"


def test_an_optimum_without_a_floor_closes_no_gap(tmp_path, read, write_comparison, two_references):
    rows = [{"name": "BC", "mean": 0.1, "low": 0.05, "high": 0.15}]
    page = read(write_comparison(tmp_path / "c", rows=rows, references=two_references[:1], runs={}))
    assert "of the way" not in page.text and "against 0.5675 for the exact optimum" in page.text
    assert page.row("exact optimum").endswith("0.5675 exact")


def test_names_of_the_user_take_no_article(tmp_path, read, write_comparison, three_rows):
    """The role says what a reference is, the name which one. (0.36 + 0.31) / (0.9 + 0.31) = 55%."""
    references = [
        {"name": "asks first", "role": "optimum", "mean": 0.9},
        {"name": "writer", "role": "behaviour", "mean": -0.31, "low": -0.33, "high": -0.29},
        {"name": "behaviour", "mean": 0.1},
    ]
    rows = [three_rows[1]]
    text = read(write_comparison(tmp_path / "c", rows=rows, references=references, runs={})).text
    assert "against −0.310 for the behaviour policy (writer) and 0.9 for the optimum (asks first)" in text
    assert "55% of the way from the behaviour policy (writer) to the optimum." in text
    assert "lies apart from that of the behaviour policy (writer; −0.330 to −0.290)." in text
    assert "Gap closed: 0% is the behaviour policy (writer), 100% is the optimum (asks first)." in text
    assert "the interval of the behaviour policy (writer)." in text
    references[1]["name"] = "behaviour"
    text = read(write_comparison(tmp_path / "d", rows=rows, references=references, runs={})).text
    assert "against −0.310 for the behaviour policy and 0.9 for" in text


def test_an_unknown_role_is_named(tmp_path, write_comparison, three_rows):
    rows = [three_rows[0] | {"role": "optimal"}]
    with pytest.raises(InputError, match=r"rows, entry 1: role is 'optimal'; expected one of optimum, "):
        write_report(write_comparison(tmp_path / "c", rows=rows, runs={}))


def test_best_baseline_is_said_plainly(tmp_path, read, write_comparison, three_rows):
    rows = [three_rows[0] | {"mean": 0.5, "low": 0.45, "high": 0.55}, three_rows[1]]
    text = read(write_comparison(tmp_path / "c", rows=rows, runs={})).text
    assert "BC reaches a mean return of 0.500" in text and "No other method does better than BC." in text


def test_quoted_references_are_shown_as_given(tmp_path, read, write_comparison, three_rows):
    """A published figure without interval is neither an optimum nor exact, and gets no decimals of ours."""
    references = [{"name": "published RL", "mean": 7.1}]
    rows = [three_rows[1] | {"mean": 6.923, "low": 6.7, "high": 7.14}]
    page = read(write_comparison(tmp_path / "c", rows=rows, references=references, runs={}, score="points"))
    assert page.row("published RL") == "published RL 7.1 not given"
    assert "ILQL has the best points: 6.92 (95% interval 6.70 to 7.14)." in page.text
    assert "No optimum is known for this task" in page.text


def test_table_lists_methods_and_optimum_best_first(page):
    """Gap of MC: (0.18 + 0.30) / 0.8675 = 55%; the decimals are those of the narrowest interval, +-0.02."""
    assert page.row("ILQL") == "ILQL 0.360 0.324 to 0.396 76% 80% 2,000"
    assert page.row("MC") == "MC 0.180 0.140 to 0.224 55% 60% 2,000"
    assert page.row("BC") == "BC −0.300 −0.340 to −0.260 0% 31% 2,000"
    assert page.row("exact optimum") == "exact optimum computed by backward induction 0.5675 exact"
    assert page.row("behaviour policy") == "behaviour policy wrote the logs −0.310 −0.330 to −0.290"
    names = re.findall(r'<th scope="row">(?:<a href="[^"]+">)?([^<]+)', page.html)
    assert names[:5] == ["exact optimum", "ILQL", "MC", "BC", "behaviour policy"]
    assert "before anybody talked to it. Take ILQL." in page.text
    assert 'href="better/report.html"' in page.html


def test_where_lower_is_better_the_lowest_leads(tmp_path, read, write_comparison):
    """Costs 2 and 5 with optimum 1: from BC's 5, the method at 2 has closed (2 - 5) / (1 - 5) = 75%."""
    rows = [
        {"name": "BC", "role": "baseline", "mean": 5.0, "low": 4.8, "high": 5.2},
        {"name": "X", "mean": 2.0, "low": 1.8, "high": 2.2},
    ]
    folder = write_comparison(
        tmp_path / "c", rows=rows, references=[{"name": "optimum", "role": "optimum", "mean": 1.0}], runs={},
        score="mean cost", higher_is_better=False,
    )  # fmt: skip
    text = read(folder).text
    assert "X reaches a mean cost of 2.00" in text and "75% of the way from BC to the optimum" in text


def test_row_without_an_estimate_stays_in_the_table(tmp_path, read, write_comparison, three_rows):
    rows = [*three_rows, {"name": "New", "mean": float("nan"), "low": None, "high": None}]
    page = read(write_comparison(tmp_path / "c", rows=rows, runs={}))
    assert page.row("New") == "New no estimate none"


def test_what_beats_the_best_method_is_said(tmp_path, read, write_comparison, three_rows, two_references):
    """ILQL leads the methods at -0.35; the behaviour policy has -0.31, and the intervals overlap."""
    rows = [three_rows[0] | {"mean": -0.5, "low": -0.6, "high": -0.4}]
    rows += [three_rows[1] | {"mean": -0.35, "low": -0.38, "high": -0.32}]
    page = read(write_comparison(tmp_path / "c", rows=rows, references=two_references, runs={}))
    assert "Its mean is worse than that of the behaviour policy." in page.text
    assert "Its interval overlaps that of the behaviour policy (−0.330 to −0.290), so these" in page.text
    assert "Its interval lies apart from that of BC" in page.text
    assert "Gap closed: 0% is BC, 100% is the exact optimum." in page.text
    behind = [rows[0] | {"role": "method", "mean": -0.36, "low": -0.4, "high": -0.32}]
    page = read(write_comparison(tmp_path / "d", rows=behind, references=two_references, runs={}))
    assert "Its mean is worse than that of the behaviour policy." in page.text
    assert "of the way" not in page.text and page.row("BC").split()[-3] == "−6%"


def test_one_method_is_not_called_the_best_of_several(tmp_path, read, write_comparison, three_rows):
    page = read(write_comparison(tmp_path / "c", rows=three_rows[:1], references=[], runs={}))
    assert "BC reaches a mean return" in page.text and "No other method" not in page.text


def test_an_optimum_below_the_baseline_closes_no_gap(tmp_path, read, write_comparison):
    """By the formula (0.9 - 0.8) / (0.57 - 0.8) would be -43%, and the baseline itself 0%."""
    references = [{"name": "optimum", "role": "optimum", "mean": 0.57}]
    references += [{"name": "logs", "role": "behaviour", "mean": 0.8}]
    rows = [{"name": "ILQL", "mean": 0.9, "low": 0.5, "high": 1.3}]
    page = read(write_comparison(tmp_path / "c", rows=rows, references=references, runs={}))
    assert "of the way" not in page.text and "Gap closed" not in page.text


def test_nobody_is_past_the_optimum(tmp_path, read, write_comparison):
    """(0.59 + 0.3) / (0.57 + 0.3) = 102%: chance if the interval reaches down to 0.57, else an error."""
    references = [{"name": "optimum", "role": "optimum", "mean": 0.57}]
    references += [{"name": "logs", "role": "behaviour", "mean": -0.3}]
    rows = [{"name": "ILQL", "mean": 0.59, "low": 0.5, "high": 0.65}]
    text = read(write_comparison(tmp_path / "c", rows=rows, references=references, runs={})).text
    assert "as far as the optimum, by these conversations" in text and "102% of the way" not in text
    assert "no policy exceeds" not in text
    rows[0] |= {"low": 0.58}
    text = read(write_comparison(tmp_path / "d", rows=rows, references=references, runs={})).text
    assert "Its whole interval is better than the optimum, which no policy exceeds" in text


def test_rows_of_two_tasks_are_not_compared(tmp_path, read, write_comparison, three_rows):
    rows = [three_rows[0] | {"task": "helpdesk"}, three_rows[1] | {"task": "negotiation"}]
    said = "rows measured in one task; found 'BC' in helpdesk, 'ILQL' in negotiation"
    with pytest.raises(InputError, match=said):
        read(write_comparison(tmp_path / "c", rows=rows, runs={}))
