import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from turnwise.envs.dialogue import Message
from turnwise.envs.negotiation import (
    SELECTION,
    Negotiation,
    NegotiationTable,
    Outcome,
    Scenario,
    divisions,
    pareto_optimal,
    points,
    read_negotiations,
    remainder,
    scenarios,
    system_message,
    to_log,
)
from turnwise.envs.negotiation_claims import ALL, HALF, LISTENER, REST, SPEAKER, UNSAID, read_claims
from turnwise.envs.negotiation_features import WIDTH, refused, talk_of
from turnwise.envs.negotiation_reading import AllocationReader, _Design, _minimise, agreement, fit_reader

# One book worth 0, four hats worth 2, two balls worth 1 to this side; the partner's values are 4, 1 and 1.
AGREED = (
    "1 0 4 2 2 1 YOU: i would like 4 hats and you can have the rest . <eos> THEM: deal <eos> "
    "YOU: <selection> item0=0 item1=4 item2=0 <eos> reward=8 agree 1 4 4 1 2 1"
)
MIRROR = (
    "1 4 4 1 2 1 THEM: i would like 4 hats and you can have the rest . <eos> YOU: deal <eos> "
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
    assert agreed == Negotiation(
        counts=(1, 4, 2),
        values=(0, 2, 1),
        partner_values=(4, 1, 1),
        turns=(
            ("me", "i would like 4 hats and you can have the rest ."),
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
        {"role": "assistant", "content": "i would like 4 hats and you can have the rest .", "reward": 0.0},
        {"role": "user", "content": "deal"},
        {"role": "assistant", "content": "<selection>", "reward": 8.0},
    ]
    assert (log["terminated"], log["id"], log["partner_values"]) == (True, "deal-00001", [4, 1, 1])
    log = to_log(mirror)
    assert log is not None
    assert log["messages"] == [
        {"role": "system", "content": "book 1 x 4 hat 4 x 1 ball 2 x 1"},
        {"role": "user", "content": "i would like 4 hats and you can have the rest ."},
        {"role": "assistant", "content": "deal", "reward": 6.0},
        {"role": "user", "content": "<selection>"},
    ]
    log = to_log(disconnected)
    assert log is not None
    assert "terminated" not in log
    assert log["truncated"] is True
    assert [m["content"] for m in log["messages"][1:]] == ["hats ?", "ok"]
    assert to_log(replace(mirror, turns=(("them", "hi"), ("them", SELECTION)))) is None


def test_divisions_are_all_shares_and_remainders_complement_them() -> None:
    """(1+1)(2+1)(0+1) = 6 shares; the first item varies slowest."""
    shares = divisions((1, 2, 0))
    assert shares == [(0, 0, 0), (0, 1, 0), (0, 2, 0), (1, 0, 0), (1, 1, 0), (1, 2, 0)]
    assert [remainder((1, 2, 0), s) for s in shares] == shares[::-1]
    assert points((3, 2, 9), (1, 2, 0)) == 7


def test_pareto_optimal_by_hand() -> None:
    """One book, one hat; A values them 9 and 1, B values them 1 and 9.

    The divisions are worth (10, 0), (9, 9), (1, 1), (0, 10) to A and B: only (1, 1) is beaten, by (9, 9).
    Where A takes nothing and B values nothing more, giving away for free is beaten: with values 0 10 and
    5 5, (10, 0) (A has both) is beaten by (10, 5) (A has the hat only).
    """
    counts, a, b = (1, 1, 0), (9, 1, 0), (1, 9, 0)
    optimal = {p: pareto_optimal(counts, a, b, *p) for p in [(10, 0), (9, 9), (1, 1), (0, 10)]}
    assert optimal == {(10, 0): True, (9, 9): True, (1, 1): False, (0, 10): True}
    assert not pareto_optimal(counts, (0, 10, 0), (5, 5, 0), 10, 0)
    assert pareto_optimal(counts, (0, 10, 0), (5, 5, 0), 10, 5)


def test_scenarios_come_once_from_each_side(tmp_path: Path) -> None:
    rows = read_negotiations(write(tmp_path, [AGREED, MIRROR, NONE], ["test", "test", "train"]))
    here = Scenario((1, 4, 2), (0, 2, 1), (4, 1, 1))
    assert scenarios(rows, "test") == [here, here.swapped()]
    assert scenarios(rows[:1], "test") == [here, here.swapped()]
    alike = [replace(rows[0], partner_values=(0, 2, 1))]
    assert scenarios(alike, "test") == [Scenario((1, 4, 2), (0, 2, 1), (0, 2, 1))]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("i would like 4 hats and you can have the rest", [(1, SPEAKER, 4), (REST, LISTENER, ALL)]),
        ("You can have ALL the hats if I get the book", [(1, LISTENER, ALL), (0, SPEAKER, 1)]),
        ("i can give you both books", [(0, LISTENER, 2)]),
        ("give me the ball and take the rest", [(2, SPEAKER, 1), (REST, LISTENER, ALL)]),
        ("can you give me one of the balls ?", [(2, SPEAKER, 1)]),
        ("2 hats for me and a ball for you", [(1, SPEAKER, 2), (2, LISTENER, 1)]),
        ("i need 2 hats , rest to you", [(1, SPEAKER, 2), (REST, LISTENER, ALL)]),
        ("i i'll take a book . the rest is yours", [(0, SPEAKER, 1), (REST, LISTENER, ALL)]),
        ("i want one of each", [(0, SPEAKER, 1), (1, SPEAKER, 1), (2, SPEAKER, 1)]),
        ("you get everything except the book", [(REST, LISTENER, ALL), (0, SPEAKER, 1)]),
        ("split the balls and i take the hat", [(2, UNSAID, HALF), (1, SPEAKER, 1)]),
        ("how about the hats ?", [(1, UNSAID, ALL)]),
        ("my final offer is 1 hat", [(1, SPEAKER, 1)]),
        ("no deal , sorry", []),
        ("", []),
    ],
)
def test_claims_of_plain_offers(text: str, expected: list[tuple[int, int, int]]) -> None:
    assert [(c.item, c.side, c.amount) for c in read_claims(text)[1]] == expected


def test_a_not_marks_the_claims_of_its_clause() -> None:
    claims = read_claims("i don't need the hats , but i want the book")[1]
    assert [(c.item, c.negated) for c in claims] == [(1, True), (0, False)]


def talk(*turns: str) -> tuple[tuple[str, str], ...]:
    """Turns written "m words" and "t words"."""
    return tuple(("me" if turn[0] == "m" else "them", turn[2:]) for turn in turns)


def mirrored(turns):
    return tuple(("them" if who == "me" else "me", text) for who, text in turns)


def hand_made() -> list[Negotiation]:
    """Offers for every count of hats that the other side takes or refuses."""
    rows = []
    for n in (1, 2, 3):
        for taken, answer in [(True, "deal"), (False, "no deal"), (True, "ok"), (False, "no way")]:
            turns = talk(f"m i get {n} hats you get the rest", f"t {answer}", f"m {SELECTION}")
            share = (0, n, 0) if taken else None
            rows.append(
                Negotiation((2, 3, 1), (1, 1, 5), (2, 2, 0), turns, share, n, taken, False, "train", 1)
            )
    return rows


def test_the_likelihood_has_the_gradient_it_says() -> None:
    """Central differences in float64, at the weights where the gradient is largest."""
    rows = hand_made()
    design = _Design({(n.counts, talk_of(n.turns)): n.selection for n in rows})
    w = np.random.default_rng(0).normal(size=WIDTH)
    loss, gradient = design.loss(w, 0.5)
    assert np.isfinite(loss)
    for i in np.argsort(-np.abs(gradient))[:20]:
        step = np.zeros(WIDTH)
        step[i] = 1e-5
        slope = (design.loss(w + step, 0.5)[0] - design.loss(w - step, 0.5)[0]) / 2e-5
        assert slope == pytest.approx(gradient[i], rel=1e-5, abs=1e-4)


def test_without_weights_everything_is_equally_likely() -> None:
    """(2+1)(3+1)(1+1) = 24 divisions and no agreement: 12 examples cost 12 log 25, weights of 0 nothing."""
    design = _Design({(n.counts, talk_of(n.turns)): n.selection for n in hand_made()})
    assert design.loss(np.zeros(WIDTH), 3.0)[0] == pytest.approx(12 * np.log(25), rel=1e-12)


def test_the_minimiser_finds_the_minimum_of_a_skewed_bowl() -> None:
    """f(x) = 1/2 sum_i i (x_i - i)^2 for i = 1..6 is least, 0, at x_i = i."""
    i = np.arange(1.0, 7.0)
    x = _minimise(lambda x: (float((i * (x - i) ** 2).sum() / 2), i * (x - i)), np.zeros(6), steps=50)
    np.testing.assert_allclose(x, i, atol=1e-2)


def test_a_reader_fitted_on_hats_reads_hats_and_their_mirror_image() -> None:
    reader = fit_reader(hand_made(), penalty=0.1)
    taken = talk("t i get 2 hats you get the rest", "m deal", f"t {SELECTION}")
    assert reader.read((2, 3, 1), taken) == (2, 1, 1)
    assert reader.read((2, 3, 1), mirrored(taken)) == (0, 2, 0)
    left = talk("t i get 2 hats you get the rest", "m no way", f"t {SELECTION}")
    assert reader.read((2, 3, 1), left) is None
    assert reader.read((2, 3, 1), talk("t hello", "m deal", f"t {SELECTION}")) is None
    p, q = (reader.probabilities((2, 3, 1), turns) for turns in (taken, mirrored(taken)))
    assert sum(p.values()) == pytest.approx(1)
    assert p == {None if s is None else remainder((2, 3, 1), s): x for s, x in q.items()}


def test_rows_that_say_nothing_about_the_words_are_not_learnt_from() -> None:
    rows = [replace(n, agreed=False) for n in hand_made() if n.selection]
    rows += [replace(n, disconnected=True) for n in hand_made()]
    with pytest.raises(ValueError, match="no finished negotiation"):
        fit_reader(rows)


def test_refusals_that_the_talk_went_on_from_are_found() -> None:
    """Position 1 refuses and an offer follows; 3 makes an offer itself; 5 is the last word."""
    turns = talk(
        "m i want the hats", "t no", "m one hat ?", "t no , you get the book", "m ok", "t no", "m no"
    )
    assert refused(turns) == [1]


def test_weights_survive_saving_and_others_are_refused(tmp_path: Path) -> None:
    reader = fit_reader(hand_made())
    reader.save(tmp_path / "reader.npz")
    again = AllocationReader.load(tmp_path / "reader.npz")
    np.testing.assert_array_equal(again.weights, reader.weights)
    np.savez(tmp_path / "other.npz", weights=np.zeros(3))
    with pytest.raises(ValueError, match=r"other.npz: weights of shape \(3,\)"):
        AllocationReader.load(tmp_path / "other.npz")


def table_where_a_takes(share: tuple[int, int, int] | None, **limits: int) -> NegotiationTable:
    return NegotiationTable(lambda counts, turns: share, **limits)


SCENARIO = Scenario((1, 4, 2), (0, 2, 1), (4, 1, 1))


def test_a_table_pays_both_sides_when_one_closes_the_talk() -> None:
    """A takes 3 hats and 1 ball: 3*2 + 1 = 7; B is left 1 book, 1 hat, 1 ball: 4 + 1 + 1 = 6.

    That is Pareto-optimal: every move of one more item to A gains A at most 2 and costs B at least 1;
    no division gives A 7 and B 7, the largest sums are 8 + 6 = 7 + 7 = 14? (4 hats) + (book, 2 balls) is
    8 and 6, which has as much for B and more for A: so 7 and 6 is beaten.
    """
    table = table_where_a_takes((0, 3, 1))
    table.open(0, SCENARIO, first="b")
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
    table.open(3, SCENARIO, first="a")
    table.say(3, "a", "all hats for me")
    table.say(3, "b", SELECTION)
    assert heard == [((1, 4, 2), [("me", "all hats for me"), ("them", SELECTION)])]
    assert table.outcome(3, "a") == Outcome(8, 6, agreed=True, pareto=True, closed=True, share=(0, 4, 0))


def test_no_agreement_and_the_limit_pay_nobody() -> None:
    table = table_where_a_takes(None, max_utterances=3)
    table.open(0, SCENARIO, first="a")
    assert table.say(0, "a", SELECTION)
    assert table.outcome(0, "b") == Outcome(0, 0, agreed=False, pareto=False, closed=True, share=None)
    table.open(0, SCENARIO, first="a")
    assert [table.say(0, side, "hm") for side in ("a", "b", "a")] == [False, False, True]
    assert table.outcome(0, "b") == Outcome(0, 0, agreed=False, pareto=False, closed=False, share=None)


def test_nobody_speaks_out_of_turn() -> None:
    table = table_where_a_takes(None)
    table.open(0, SCENARIO, first="a")
    with pytest.raises(ValueError, match="lane 0: not the turn of side 'b'"):
        table.say(0, "b", "me first")
    table.say(0, "a", SELECTION)
    with pytest.raises(ValueError, match="lane 0: not the turn of side 'b'"):
        table.say(0, "b", "wait")


@pytest.fixture(scope="module")
def corpus() -> list[Negotiation]:
    beside = Path(__file__).resolve().parents[2].parent / "shared" / "data"
    folder = Path(os.environ.get("TURNWISE_DATA", beside)) / "deal_or_no_deal"
    if not (folder / "data.txt").exists():
        pytest.skip(f"the Deal or No Deal corpus is not at {folder}; set TURNWISE_DATA to the data folder")
    return read_negotiations(folder)


@pytest.fixture(scope="module")
def reader(corpus: list[Negotiation]) -> AllocationReader:
    return fit_reader(n for n in corpus if n.split == "train")


def test_the_corpus_has_the_rows_it_is_known_for(corpus: list[Negotiation]) -> None:
    """10,095 + 1,087 + 1,052 rows; 9,531 with points, 1,314 with "no agreement" and 79 disconnected."""
    assert Counter(n.split for n in corpus) == {"train": 10095, "val": 1087, "test": 1052}
    assert sum(n.agreed for n in corpus) == 9531
    assert sum(n.disconnected for n in corpus) == 79
    assert sum(n.selection is None and not n.disconnected for n in corpus) == 1314
    assert all(points(n.values, n.counts) == points(n.partner_values, n.counts) == 10 for n in corpus)
    logs = [to_log(n) for n in corpus]
    assert None not in logs
    assert all(n.turns[i][0] != n.turns[i + 1][0] for n in corpus for i in range(len(n.turns) - 1))
    given = sum(m.get("reward", 0.0) for log in logs if log for m in log["messages"])
    assert given == sum(n.points for n in corpus)
    seen = {system_message(n.counts, n.values) for n in corpus if n.split == "test"}
    assert not seen - {system_message(s.counts, s.values_a) for s in scenarios(corpus, "test")}


def test_the_reading_agrees_with_people_on_conversations_it_was_not_fitted_on(
    corpus: list[Negotiation], reader: AllocationReader
) -> None:
    """Floors two points under what was measured on the validation split (0.91 and 0.97 of the rows)."""
    found = agreement(reader, [n for n in corpus if n.split == "val"])
    assert found["agreed"][1] == 844
    assert found["no agreement"][1] == 119
    assert found["agreed"][0] / 844 > 0.89
    assert found["no agreement"][0] / 119 > 0.94


def test_exchanging_the_sides_exchanges_the_shares_exactly(
    corpus: list[Negotiation], reader: AllocationReader
) -> None:
    for n in corpus[:400]:
        here, there = reader.read(n.counts, n.turns), reader.read(n.counts, mirrored(n.turns))
        assert there == (None if here is None else remainder(n.counts, here))


def test_nothing_is_won_by_closing_a_talk_after_a_refusal(
    corpus: list[Negotiation], reader: AllocationReader
) -> None:
    """152 of 154 such endings, cut out of validation conversations, are read as no agreement."""
    closed = [
        (n.counts, [*n.turns[: t + 1], ("me" if n.turns[t][0] == "them" else "them", SELECTION)])
        for n in corpus
        if n.split == "val" and not n.disconnected and (n.agreed or n.selection is None)
        for t in refused(n.turns)
    ]
    assert len(closed) > 100
    assert np.mean([reader.read(counts, turns) is None for counts, turns in closed]) > 0.95
