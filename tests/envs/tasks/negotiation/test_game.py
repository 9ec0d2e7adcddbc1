from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from turnwise.envs.dialogue import Message
from turnwise.envs.tasks.negotiation.corpus import (
    Recording,
    on_offer,
    read_negotiations,
    renamed,
    revalued,
    scenarios_of,
    to_log,
    values_by_counts,
)
from turnwise.envs.tasks.negotiation.game import SELECTION, NegotiationTable, Outcome, Turn
from turnwise.envs.tasks.negotiation.scenarios import (
    Scenario,
    Triple,
    divisions,
    pareto_optimal,
    points,
    remainder,
)

# One book worth 0, four hats worth 2, two balls worth 1 to this side; the partner's values are 4, 1 and 1.
AGREED = (
    "1 0 4 2 2 1 YOU: every hat for me , the others are yours . <eos> THEM: deal <eos> "
    "YOU: <selection> item0=0 item1=4 item2=0 <eos> reward=8 agree 1 4 4 1 2 1"
)
MIRROR = (
    "1 4 4 1 2 1 THEM: every hat for me , the others are yours . <eos> YOU: deal <eos> "
    "THEM: <selection> item0=1 item1=0 item2=2 <eos> reward=6 agree 1 0 4 2 2 1"
)
NONE = (
    "1 0 4 2 2 1 THEM: all hats > . < <eos> YOU: no <eos> THEM: <selection> no agreement <eos> "
    "reward=no agreement agree 1 4 4 1 2 1"
)
CONTRADICTORY = (
    "1 0 4 2 2 1 YOU: hats ? <eos> THEM: <selection> item0=1 item1=4 item2=2 <eos> "
    "reward=10 disagree 1 4 4 1 2 1"
)
DISCONNECTED = (
    "1 0 4 2 2 1 THEM: hats ? <eos> YOU: ok <eos> THEM: <selection> disconnect <eos> "
    "reward=disconnect agree 1 4 4 1 2 1"
)


def write(folder: Path, lines: list[str], splits: list[str] | None = None) -> Path:
    (folder / "data.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    text = "\n".join(splits or ["train"] * len(lines))
    (folder / "split_of_data_rows.txt").write_text(text + "\n", encoding="utf-8")
    return folder


def test_rows_say_who_spoke_what_was_written_down_and_what_it_was_worth(tmp_path: Path) -> None:
    """4 hats at 2 each are 8 points; 1 book at 4 and 2 balls at 1 are the mirror's 6."""
    splits = ["train", "train", "val", "test", "test"]
    folder = write(tmp_path, [AGREED, MIRROR, NONE, CONTRADICTORY, DISCONNECTED], splits)
    agreed, mirror, none, contradictory, disconnected = read_negotiations(folder)
    assert agreed == Recording(
        counts=(1, 4, 2),
        values=(0, 2, 1),
        partner_values=(4, 1, 1),
        turns=(
            ("me", "every hat for me , the others are yours ."),
            ("them", "deal"),
            ("me", "<selection>"),
        ),
        selection=(0, 4, 0),
        points=8,
        agreed=True,
        disconnected=False,
        split="train",
        row=1,
    )
    assert (mirror.points, mirror.selection, mirror.turns[0][0]) == (6, (1, 0, 2), "them")
    assert (none.turns[0], none.points, none.agreed) == (("them", "all hats > . <"), 0, False)
    assert (none.selection, none.turns[-1]) == (None, ("them", SELECTION))
    # What a side claims while the other claims something else is no points.
    assert (contradictory.selection, contradictory.points, contradictory.agreed) == ((1, 4, 2), 0, False)
    assert disconnected.disconnected
    assert not disconnected.agreed
    assert disconnected.turns == (("them", "hats ?"), ("me", "ok"))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (AGREED.replace("reward=8", "reward=7"), "reward=7, but the selection is worth 8"),
        (AGREED.replace("item1=4", "item1=5"), "takes more than the counts"),
        (AGREED.replace("agree 1 4 4 1 2 1", "agree 2 4 4 1 2 1"), "this side sees counts"),
        (AGREED.replace("YOU: <selection>", "<selection>"), "expected 'count value' x 3"),
        (AGREED.replace("reward=8", "reward=great"), "expected 'count value' x 3"),
        ("", "expected 'count value' x 3"),
    ],
)
def test_a_broken_row_is_named_by_file_and_line(tmp_path: Path, line: str, words: str) -> None:
    folder = write(tmp_path, [AGREED, line, MIRROR])
    with pytest.raises(ValueError, match=words) as error:
        read_negotiations(folder)
    assert str(error.value).startswith(f"{folder / 'data.txt'}, line 2: ")


def test_splits_must_fit_the_rows(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"split_of_data_rows.txt, line 2: 'dev'"):
        read_negotiations(write(tmp_path, [AGREED, MIRROR], ["train", "dev"]))
    with pytest.raises(ValueError, match="1 rows; expected 2"):
        read_negotiations(write(tmp_path, [AGREED, MIRROR], ["train"]))


def test_a_log_pays_the_agents_last_message_and_hides_the_partners_values(tmp_path: Path) -> None:
    """In the mirror the partner closes the talk, so that the 6 points stand on the agent's "deal"."""
    agreed, mirror, disconnected = read_negotiations(write(tmp_path, [AGREED, MIRROR, DISCONNECTED]))
    log = to_log(agreed)
    assert log is not None
    assert log["messages"] == [
        {"role": "system", "content": "book 1 x 0 hat 4 x 2 ball 2 x 1"},
        {"role": "assistant", "content": "every hat for me , the others are yours .", "reward": 0.0},
        {"role": "user", "content": "deal"},
        {"role": "assistant", "content": "<selection>", "reward": 8.0},
    ]
    assert (log["terminated"], log["id"], log["partner_values"]) == (True, "deal-00001", [4, 1, 1])
    log = to_log(mirror)
    assert log is not None
    assert log["messages"] == [
        {"role": "system", "content": "book 1 x 4 hat 4 x 1 ball 2 x 1"},
        {"role": "user", "content": "every hat for me , the others are yours ."},
        {"role": "assistant", "content": "deal", "reward": 6.0},
        {"role": "user", "content": "<selection>"},
    ]
    log = to_log(disconnected)
    assert log is not None
    assert "terminated" not in log
    assert log["truncated"] is True
    assert [m["content"] for m in log["messages"][1:]] == ["hats ?", "ok"]
    assert to_log(replace(mirror, turns=(("them", "hi"), ("them", SELECTION)))) is None


def test_items_can_change_names_in_words_and_numbers(tmp_path: Path) -> None:
    """Books are called hats, hats balls, balls books: counts 1 4 2 become 2 1 4, and so on all others.

    Three such changes are none, but that a basketball is a ball from then on.
    """
    (agreed,) = read_negotiations(write(tmp_path, [AGREED]))
    talk = replace(agreed, turns=(("me", "a book , 4 hats , no basketballs , that hat"), ("them", SELECTION)))
    other = renamed(talk, (1, 2, 0))
    assert other.turns == (("me", "a hat , 4 balls , no books , that ball"), ("them", SELECTION))
    assert (other.counts, other.values, other.partner_values) == ((2, 1, 4), (1, 0, 2), (1, 4, 1))
    assert other.selection == (0, 0, 4) and points(other.values, other.selection) == other.points == 8
    assert renamed(renamed(other, (1, 2, 0)), (1, 2, 0)) == replace(
        talk, turns=(("me", "a book , 4 hats , no balls , that hat"), talk.turns[1])
    )
    with pytest.raises(ValueError, match="each of 0, 1 and 2 once"):
        renamed(talk, (0, 0, 2))


def test_other_private_values_change_the_points_and_nothing_else(tmp_path: Path) -> None:
    """4 hats at 1 are 4 points where they were 8 at 2; without an agreement there are none either way."""
    agreed, none = read_negotiations(write(tmp_path, [AGREED, NONE]))
    assert revalued(agreed, (2, 1, 2)) == replace(agreed, values=(2, 1, 2), points=4)
    assert revalued(none, (2, 1, 2)) == replace(none, values=(2, 1, 2))
    assert values_by_counts([agreed, none]) == {(1, 4, 2): [(0, 2, 1), (4, 1, 1)]}


def test_notes_tell_what_closing_now_would_bring(tmp_path: Path) -> None:
    """After each utterance of the partner's: the reading there, at this side's own values.

    The reading here: the side takes as many hats as there were turns before it closed.
    """
    row = replace(
        read_negotiations(write(tmp_path, [AGREED]))[0],
        turns=(("them", "hats ?"), ("me", "no"), ("them", "two balls then"), ("them", SELECTION)),
    )

    def read(counts: Triple, turns: Sequence[Turn]) -> Triple | None:
        assert turns[-1] == ("me", SELECTION)
        return None if len(turns) == 2 else (0, len(turns) - 1, 0)

    log = to_log(row, "-x", on_offer(row, read))
    assert log is not None and log["id"] == "deal-00001-x"
    assert [(m["role"], m["content"]) for m in log["messages"][1:]] == [
        ("user", "hats ?"),
        ("tool", "nothing agreed"),
        ("assistant", "no"),
        ("user", "two balls then"),
        ("tool", "worth 6"),
        ("user", SELECTION),
    ]
    # The table tells both sides the same as the log does.
    table = NegotiationTable(read, notes=True)
    table.begin(0, SCENARIO, first="b")
    for side, text in (("b", "hats ?"), ("a", "no"), ("b", "two balls then")):
        table.say(0, side, text)
    assert [(m.role, m.content) for m in table.seen_by(0, "a")] == [
        (m["role"], m["content"]) for m in log["messages"][:-1]
    ]
    assert [m.content for m in table.seen_by(0, "b") if m.role == "tool"] == ["worth 2"]


def test_divisions_are_all_shares_and_remainders_complement_them() -> None:
    """(1+1)(2+1)(0+1) = 6 shares; the first item varies slowest."""
    shares = divisions((1, 2, 0))
    assert shares == [(0, 0, 0), (0, 1, 0), (0, 2, 0), (1, 0, 0), (1, 1, 0), (1, 2, 0)]
    assert [remainder((1, 2, 0), s) for s in shares] == shares[::-1]
    assert points((3, 2, 9), (1, 2, 0)) == 7


def test_pareto_optimal_by_hand() -> None:
    """One book, one hat; A values them 9 and 1, B values them 1 and 9.

    The divisions are worth (10, 0), (9, 9), (1, 1), (0, 10) to A and B: only (1, 1) is beaten, by (9, 9).
    With values (0, 10) and (5, 5), A keeping both, (10, 0), is beaten by A keeping the hat alone, (10, 5).
    """
    counts, a, b = (1, 1, 0), (9, 1, 0), (1, 9, 0)
    optimal = {p: pareto_optimal(counts, a, b, *p) for p in [(10, 0), (9, 9), (1, 1), (0, 10)]}
    assert optimal == {(10, 0): True, (9, 9): True, (1, 1): False, (0, 10): True}
    assert not pareto_optimal(counts, (0, 10, 0), (5, 5, 0), 10, 0)
    assert pareto_optimal(counts, (0, 10, 0), (5, 5, 0), 10, 5)


def test_scenarios_come_once_from_each_side(tmp_path: Path) -> None:
    rows = read_negotiations(write(tmp_path, [AGREED, MIRROR, NONE], ["test", "test", "train"]))
    here = Scenario((1, 4, 2), (0, 2, 1), (4, 1, 1))
    assert scenarios_of(rows, "test") == [here, here.swapped()]
    assert scenarios_of(rows[:1], "test") == [here, here.swapped()]
    alike = [replace(rows[0], partner_values=(0, 2, 1))]
    assert scenarios_of(alike, "test") == [Scenario((1, 4, 2), (0, 2, 1), (0, 2, 1))]


def table_where_a_takes(share: tuple[int, int, int] | None, **limits: int) -> NegotiationTable:
    return NegotiationTable(lambda counts, turns: share, **limits)


SCENARIO = Scenario((1, 4, 2), (0, 2, 1), (4, 1, 1))


def test_a_table_pays_both_sides_when_one_closes_the_talk() -> None:
    """A takes 3 hats and 1 ball: 3*2 + 1 = 7; B is left 1 book, 1 hat, 1 ball: 4 + 1 + 1 = 6.

    Not Pareto-optimal: 4 hats for A against the book and 2 balls for B pay 8 and 4 + 2 = 6.
    """
    table = table_where_a_takes((0, 3, 1))
    table.begin(0, SCENARIO, first="b")
    assert table.whose_turn(0) == "b"
    assert not table.say(0, "b", " i want the book , a hat and a ball ")
    assert table.outcome(0, "a") is None
    assert table.whose_turn(0) == "a"
    assert table.say(0, "a", "fine <selection>")
    assert table.whose_turn(0) is None
    assert table.outcome(0, "a") == Outcome(7, 6, agreed=True, pareto=False, closed=True, share=(0, 3, 1))
    assert table.outcome(0, "b") == Outcome(6, 7, agreed=True, pareto=False, closed=True, share=(1, 1, 1))
    assert table.seen_by(0, "a") == (
        Message("system", "book 1 x 0 hat 4 x 2 ball 2 x 1"),
        Message("user", "i want the book , a hat and a ball"),
        Message("assistant", "<selection>"),
    )
    assert table.seen_by(0, "b") == (
        Message("system", "book 1 x 4 hat 4 x 1 ball 2 x 1"),
        Message("assistant", "i want the book , a hat and a ball"),
        Message("user", "<selection>"),
    )


def test_a_table_reads_the_whole_talk_from_side_a_and_knows_the_frontier() -> None:
    """A takes the 4 hats, 8 points, and B the rest, 4 + 2 = 6: more for A costs B a ball or the book."""
    heard = []

    def read(counts, turns):
        heard.append((counts, turns))
        return (0, 4, 0)

    table = NegotiationTable(read)
    table.begin(3, SCENARIO, first="a")
    table.say(3, "a", "all hats for me")
    table.say(3, "b", SELECTION)
    assert heard == [((1, 4, 2), [("me", "all hats for me"), ("them", SELECTION)])]
    assert table.outcome(3, "a") == Outcome(8, 6, agreed=True, pareto=True, closed=True, share=(0, 4, 0))


def test_no_agreement_and_the_limit_pay_nobody() -> None:
    table = table_where_a_takes(None, max_utterances=3)
    table.begin(0, SCENARIO, first="a")
    assert table.say(0, "a", SELECTION)
    assert table.outcome(0, "b") == Outcome(0, 0, agreed=False, pareto=False, closed=True, share=None)
    table.begin(0, SCENARIO, first="a")
    assert [table.say(0, side, "hm") for side in ("a", "b", "a")] == [False, False, True]
    assert table.outcome(0, "b") == Outcome(0, 0, agreed=False, pareto=False, closed=False, share=None)


def test_nobody_speaks_out_of_turn() -> None:
    table = table_where_a_takes(None)
    table.begin(0, SCENARIO, first="a")
    with pytest.raises(ValueError, match="lane 0: not the turn of side 'b'"):
        table.say(0, "b", "me first")
    table.say(0, "a", SELECTION)
    with pytest.raises(ValueError, match="lane 0: not the turn of side 'b'"):
        table.say(0, "b", "wait")
