"""Long conversations chained into rows: nothing learnt twice, nothing lost, values across every cut.

Ids are positions here, so that a row of a conversation says where it stands in the whole.
"""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from turnwise.algorithms.logs.mc import whole_returns
from turnwise.data.batch import Batch, pack_tokens, pack_turns
from turnwise.data.tokens import Tokens, TokenWriter, segments
from turnwise.losses.returns import discounted_returns, td_targets
from turnwise.run.errors import InputError

f64 = torch.float64
GAMMA, WITHIN = 0.9, 0.97
VALUES = torch.tensor(np.random.default_rng(0).normal(size=4096))


def conversation(shape: list[tuple[int, int]], end: str, name: str = "c", seed: int = 0) -> Tokens:
    """Turns of (read, said) tokens with random rewards, then as `end` says: "ended", "read" or "said"."""
    writer, rng = TokenWriter(), np.random.default_rng(seed)
    at = 0
    for read, said in shape:
        writer.read(list(range(at, at + read)))
        writer.act(list(range(at + read, at + read + said)), float(rng.normal()), None)
        at += read + said
    if end == "read":
        writer.read([at, at + 1])
    return writer.tokens(terminated=end == "ended", next_known=end != "said", id=name)


turn = st.tuples(st.integers(1, 9), st.integers(1, 9))
long_turn = st.tuples(st.integers(1, 9), st.integers(30, 90))
shapes = st.lists(st.one_of(turn, turn, turn, long_turn), min_size=3, max_size=9)
ends = st.sampled_from(["ended", "read", "said"])
contexts = st.integers(24, 60)


def states(batch: Batch) -> torch.Tensor:
    """Where in the whole conversation each decision is taken. [B, A+1]"""
    return batch.inputs.gather(1, batch.decisions)


def learnt(batch: Batch, x: torch.Tensor) -> dict[int, float]:
    """x [B, A] by position in the conversation, of the decisions that are learnt from; each once."""
    where = states(batch)[:, :-1][batch.loss_mask].tolist()
    assert len(set(where)) == len(where)
    return dict(zip(where, x[batch.loss_mask].tolist(), strict=True))


def td(batch: Batch) -> dict[int, float]:
    """One-step targets under values that depend on the position only."""
    return learnt(batch, td_targets(batch.rewards, batch.discounts, VALUES[states(batch)[:, 1:]]))


def per_token(rows: list[Tokens]) -> Batch:
    return pack_tokens(rows, gamma=GAMMA, gamma_within_turn=WITHIN, dtype=f64)


@given(shapes, ends, contexts)
def test_every_decision_is_learnt_once_from_its_own_target(shape, end: str, context: int) -> None:
    whole = conversation(shape, end)
    assume(len(whole) > context)
    rows = segments(whole, context)
    assert len(rows) > 1 and max(map(len, rows)) <= context
    batch, one = per_token(rows), per_token([whole])
    assert td(batch) == pytest.approx(td(one), abs=1e-12)
    assert sum(learnt(batch, batch.rewards).values()) == pytest.approx(sum(learnt(one, one.rewards).values()))


@given(shapes, ends, contexts)
def test_a_row_ends_where_the_next_one_begins_to_learn(shape, end: str, context: int) -> None:
    whole = conversation(shape, end)
    assume(len(whole) > context)
    rows = segments(whole, context)
    for row, following in itertools.pairwise(rows):
        assert row.ids[-1] == following.ids[following.learn_from]
        assert following.learn_from in following.decisions
        assert following.learn_from <= context // 4
        assert row.next_known and not row.terminated
    last = rows[-1]
    assert (last.terminated, last.next_known) == (whole.terminated, whole.next_known)
    assert last.ids[-1] == whole.ids[-1]


@given(shapes, ends, contexts)
def test_turns_lose_nothing_at_cuts(shape, end: str, context: int) -> None:
    """Per turn: where no turn is cut inside the targets are those of the whole conversation; where one is,
    its parts together earn what it earned, and every final state is somebody's first decision."""
    whole = conversation(shape, end)
    assume(len(whole) > context)
    rows = segments(whole, context)
    one = pack_turns([whole], gamma=GAMMA, dtype=f64)
    batch = pack_turns(rows, gamma=GAMMA, dtype=f64)
    found, expected = td(batch), td(one)
    if all(not row.action[-1] or row.turn_end[-1] for row in rows[:-1]):
        assert found == pytest.approx(expected, abs=1e-12)
    assert set(expected) <= set(found) | {int(states(one)[0, -2])}
    kept, all_of_it = (sum(learnt(b, b.rewards).values()) for b in (batch, one))
    assert kept == pytest.approx(all_of_it, abs=1e-12)
    for b, following in enumerate(rows[1:]):
        final = int(states(batch)[b, -1])
        learnt_next = batch.decisions[b + 1, :-1][batch.mask[b + 1]].tolist()
        assert following.learn_from in learnt_next and final == following.ids[following.learn_from]


def test_a_turn_cut_inside_is_two_decisions_per_turn() -> None:
    """4 read, 20 said, earning 5, in a context of 16: the first row ends inside the turn (reward 0, discount
    1), the second goes on from that state and earns the 5: what V says at the cut is learnt there."""
    writer = TokenWriter()
    writer.read([0, 1, 2, 3])
    writer.act(list(range(4, 24)), 5.0, None)
    rows = segments(writer.tokens(terminated=True, next_known=True, id="c"), 16)
    assert [(int(t.ids[0]), int(t.ids[-1]), t.learn_from) for t in rows] == [(0, 15, 3), (12, 23, 3)]
    batch = pack_turns(rows, gamma=GAMMA, dtype=f64)
    real = batch.loss_mask
    assert states(batch)[:, :-1][real].tolist() == [3, 15]
    assert batch.rewards[real].tolist() == [0.0, 5.0]
    assert batch.discounts[real].tolist() == [1.0, 0.0]
    assert batch.inputs.gather(1, batch.ends)[real].tolist() == [15, 23]


def test_cuts_are_made_between_turns_where_they_can_be() -> None:
    """Turns of 4 + 4 tokens in a context of 16: states that open turns are 3, 11, 19 and 27.

    The first row ends at 11 (19 does not fit any more); the second reads from 11 + 1 - 4 = 8 and ends at
    19 for the same reason; the third reads from 16 and holds the rest, to 31.
    """
    rows = segments(conversation([(4, 4)] * 4, "ended"), 16)
    assert [(int(t.ids[0]), int(t.ids[-1])) for t in rows] == [(0, 11), (8, 19), (16, 31)]
    assert [t.learn_from for t in rows] == [3, 3, 3]
    assert [t.continues for t in rows] == [True, True, False]


def test_a_window_inside_a_row_does_not_claim_to_go_on() -> None:
    """The first of three rows goes on in the second. So does a window that reaches its end, and no other."""
    row = segments(conversation([(4, 4)] * 4, "ended"), 16)[0]
    assert row.continues and row.window(4, len(row)).continues and not row.window(0, 8).continues


def test_the_opening_is_kept_where_the_first_turn_fits_behind_it() -> None:
    """10 + 3 tokens of the first turn and the next 2 fit a context of 16: nothing of the opening is cut away,
    as a quarter of the context before the first decision would do; with an opening of 12 they do not."""
    begins = [int(segments(conversation([(n, 3), (2, 9)], "ended"), 16)[0].ids[0]) for n in (10, 11, 12)]
    assert begins == [0, 0, 12 - 4]


def test_a_short_conversation_is_left_alone() -> None:
    whole = conversation([(3, 3), (3, 3)], "ended")
    assert segments(whole, 12) == [whole]
    assert [t.ids.tolist() for t in segments(whole, 11)] == [list(range(9)), [7, 8, 9, 10, 11]]


def test_as_much_is_read_between_two_decisions_as_the_context_holds() -> None:
    """Two decisions 15 positions apart fit a context of 16, with no burn-in; 16 apart they do not."""
    fitting = conversation([(2, 1), (14, 1), (3, 9)], "ended")
    assert td(per_token(segments(fitting, 16))) == pytest.approx(td(per_token([fitting])))
    with pytest.raises(InputError, match=r"'c'.*16 tokens.*context of 16.*expected a larger context"):
        segments(conversation([(2, 1), (15, 1), (3, 9)], "ended"), 16)


@given(shapes, ends, contexts)
def test_monte_carlo_returns_cross_the_cuts(shape, end: str, context: int) -> None:
    """Chained rows, between rows of other conversations, give every decision its return in the whole."""
    whole = conversation(shape, end)
    assume(len(whole) > context)
    before, after = conversation([(2, 2)], "read", "b"), conversation([(2, 2)], "said", "d")
    rows = whole_returns([before, *segments(whole, context), after], GAMMA, WITHIN)
    assert rows[0] is before and rows[-1] is after
    batch, one = per_token(rows[1:-1]), per_token([whole])
    found = learnt(batch, discounted_returns(batch.rewards, batch.discounts, batch.mask))
    expected = learnt(one, discounted_returns(one.rewards, one.discounts, one.mask))
    assert found == pytest.approx(expected, abs=1e-12)


def test_returns_do_not_leak_into_another_conversation() -> None:
    """A conversation that was cut, followed by a long one: neighbours without ids are still two."""
    short = conversation([(4, 2)], "read", name="")
    long = segments(conversation([(4, 4)] * 4, "ended", name=""), 16)
    found = whole_returns([short, *long], 1.0, 1.0)
    assert found[0] is short
    np.testing.assert_array_equal(found[-1].rewards, long[-1].rewards)
    whole = conversation([(4, 4)] * 4, "ended")
    assert found[1].rewards.sum() == pytest.approx(whole.rewards.sum())


def test_a_last_row_without_anything_to_learn_still_has_its_reward() -> None:
    """4 read, 10 said, in a context of 12: decisions stand at 3 to 12. The first row holds positions 1 to 12
    and learns 3 to 11; the second has the decision at 12 alone, whose next state nobody knows. What it
    earns is in all nine returns of the first row.
    """
    whole = conversation([(4, 10)], "said", seed=4)
    first, last = segments(whole, 12)
    assert pack_tokens([first, last], gamma=1.0).loss_mask.sum(1).tolist() == [9, 0]
    folded, _ = whole_returns([first, last], 1.0, 1.0)
    batch = pack_tokens([folded], gamma=1.0, dtype=f64)
    returns = discounted_returns(batch.rewards, batch.discounts, batch.mask)
    assert returns[0].tolist() == pytest.approx([float(whole.rewards[-1])] * 9)


def test_a_window_forgets_the_end_that_it_does_not_reach() -> None:
    whole = replace(conversation([(3, 3), (3, 3)], "said"), learn_from=4)
    cut = whole.window(2, 8)
    assert cut.ids.tolist() == [2, 3, 4, 5, 6, 7]
    assert (cut.terminated, cut.next_known, cut.learn_from) == (False, True, 2)
    assert whole.window(5, 12).next_known is False
    assert conversation([(3, 3)], "ended").window(1, 6).terminated


def test_the_rows_of_the_docstring() -> None:
    """Context 12: at most 12 / 4 = 3 positions up to the first decision are read again, its state included.

    The states are 3..5, 9..12, 17, 18 and the final 20. Row 1 holds up to 9; row 2 begins at 9 + 1 - 3 = 7,
    and of the states below 7 + 12 = 19 the last one between turns is 17; row 3 begins at 17 + 1 - 3 = 15.
    """
    writer = TokenWriter()
    for read, said in ((4, 3), (3, 4), (4, 2)):
        writer.read([0] * read)
        writer.act([1] * said, 1.0, None)
    writer.read([0])
    rows = segments(writer.tokens(terminated=True, next_known=True, id="c"), 12)
    drawn = ["".join("a" if a else "r" for a in row.action) for row in rows]
    assert drawn == ["rrrraaarrr", "rrraaaarrrr", "rrraar"]
    assert [row.learn_from for row in rows] == [3, 2, 2]
    assert [row.terminated for row in rows] == [False, False, True]


def test_later_segments_keep_the_opening() -> None:
    """Context 16, an opening of 3 of 33 tokens: each row but the first begins with those 3, read and not
    learnt from, and has 3 fewer places for the talk. Every action is learnt from once, with its reward."""
    writer = TokenWriter()
    writer.read([100, 101, 102])
    for k in range(5):
        writer.read([10 * k, 10 * k + 1])
        writer.act([10 * k + 2, 10 * k + 3, 10 * k + 4, 0], k + 1.0, None)
    whole = writer.tokens(terminated=True, next_known=True, id="c")
    rows = segments(whole, 16, opening=3)
    assert len(whole) == 33 and len(rows) > 2 and max(map(len, rows)) <= 16
    assert segments(whole, 16)[1].ids[0] != 100
    learnt = []
    for row in rows:
        assert row.ids[:3].tolist() == [100, 101, 102] and not row.action[:3].any()
        chosen = [int(d) + 1 for d in row.decisions if d >= row.learn_from]
        learnt += row.ids[chosen].tolist()
        batch = per_token([row])
        assert batch.rewards[batch.loss_mask].sum() == row.rewards[chosen].sum()
    assert learnt == whole.ids[whole.action].tolist()
    assert [r.continues for r in rows] == [True] * (len(rows) - 1) + [False]


def test_an_opening_takes_a_quarter_of_the_context_at_most() -> None:
    """Of 10 tokens 4 stay, since the context is 16."""
    writer = TokenWriter()
    writer.read(list(range(100, 110)))
    for _ in range(4):
        writer.act([1, 2, 0], 1.0, None)
        writer.read([5, 6])
    rows = segments(writer.tokens(terminated=True, next_known=True, id="c"), 16, opening=10)
    assert rows[0].ids[:10].tolist() == list(range(100, 110))
    assert all(r.ids[:4].tolist() == [100, 101, 102, 103] and len(r) <= 16 for r in rows[1:])
    assert all(r.ids[4] < 100 for r in rows[1:]) and len(rows) > 1
