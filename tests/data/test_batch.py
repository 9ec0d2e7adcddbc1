"""Packing: every decision where it belongs, nothing lost, nothing invented."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from turnwise.data.batch import Batch, pack_tokens, pack_turns, turn_of_tokens
from turnwise.data.episode import Episode
from turnwise.data.steps import pack_steps
from turnwise.data.tokens import Tokens, TokenWriter, segments

f64 = torch.float64


@st.composite
def conversations(draw: st.DrawFn) -> Tokens:
    """Turns of 0 to 4 read ids and 1 to 4 said ones; cut or ended, before or after somebody's words."""
    writer = TokenWriter()
    ids = st.lists(st.integers(0, 50), min_size=1, max_size=4)
    for i in range(draw(st.integers(1, 4))):
        writer.read(draw(ids if i == 0 else st.lists(st.integers(0, 50), max_size=4)))
        said = draw(ids)
        logp = [draw(st.floats(-5, 0)) for _ in said]
        writer.act(said, draw(st.floats(-2, 2)), sum(logp), logp)
    ended, known = draw(st.sampled_from([(True, True), (False, True), (False, False)]))
    if not ended and known:
        writer.read(draw(ids))
    return writer.tokens(terminated=ended, next_known=known, id="c")


def test_tokens_of_the_textbook_row(row) -> None:
    """[7|1 2 9|5 5|3 9], 9 the stop: states before 1, 2, 9 are 0, 1, 2, before 3, 9 5, 6; the end is 7."""
    batch = pack_tokens([row("7|1 2 9|5 5|3 9", [0.5, -1.0])], gamma=0.9)
    assert batch.inputs.tolist() == [[7, 1, 2, 9, 5, 5, 3, 9]]
    assert batch.decisions.tolist() == [[0, 1, 2, 5, 6, 7]]
    assert batch.actions.tolist() == [[1, 2, 9, 3, 9]]
    assert batch.ends.tolist() == [[1, 2, 3, 6, 7]]
    assert batch.rewards.tolist() == [[0.0, 0.0, 0.5, 0.0, -1.0]]
    assert batch.mask.all() and batch.loss_mask.all()


def test_turns_of_the_textbook_row(row) -> None:
    """The utterances 1 2 9 and 3 9 are read before positions 0 and 5 and end at 3 and 7; the end is 7."""
    batch = pack_turns([row("7|1 2 9|5 5|3 9", [0.5, -1.0])], gamma=0.9)
    assert batch.decisions.tolist() == [[0, 5, 7]]
    assert batch.ends.tolist() == [[3, 7]]
    assert batch.actions is None
    assert batch.rewards.tolist() == [[0.5, -1.0]]


@pytest.mark.parametrize(
    ("terminated", "within", "expected"),
    [
        (True, 1.0, [1.0, 1.0, 0.9, 1.0, 0.0]),
        (False, 1.0, [1.0, 1.0, 0.9, 1.0, 0.9]),
        (True, 0.99, [0.99, 0.99, 0.9, 0.99, 0.0]),
        (False, 0.99, [0.99, 0.99, 0.9, 0.99, 0.9]),
    ],
)
def test_discounts_per_token(row, terminated: bool, within: float, expected: list[float]) -> None:
    """gamma where a turn ends, gamma_within_turn between its tokens; 0 after an end and never after a cut."""
    t = row("7|1 2 9|5 5|3 9|5", terminated=terminated) if not terminated else row("7|1 2 9|5 5|3 9")
    batch = pack_tokens([t], gamma=0.9, gamma_within_turn=within, dtype=f64)
    assert batch.discounts.tolist() == [expected]


def test_discounts_per_turn(row) -> None:
    assert pack_turns([row("7|1 9|5|3 9")], gamma=0.9, dtype=f64).discounts.tolist() == [[0.9, 0.0]]
    cut = row("7|1 9|5|3 9|6", terminated=False)
    assert pack_turns([cut], gamma=0.9, dtype=f64).discounts.tolist() == [[0.9, 0.9]]


def test_turns_with_nothing_read_between_them_are_two(row) -> None:
    """[7|1 2 9||3 9]: a template may put no token between two messages of the agent; both rewards count."""
    batch = pack_turns([row("7|1 2 9||3 9", [0.5, -1.0])], gamma=0.9, dtype=f64)
    assert batch.decisions.tolist() == [[0, 3, 5]]
    assert batch.ends.tolist() == [[3, 5]]
    assert batch.rewards.tolist() == [[0.5, -1.0]]
    assert batch.discounts.tolist() == [[0.9, 0.0]]


def test_a_cut_after_the_agents_words_is_read_and_not_learnt(row) -> None:
    """Nobody knows the state after the last action: it is a real decision without a target."""
    t = row("7|1 9|5|3 9", [1.0, 2.0], terminated=False, next_known=False)
    tokens, turns = pack_tokens([t], gamma=0.9), pack_turns([t], gamma=0.9)
    assert tokens.mask.tolist() == [[True] * 4] and turns.mask.tolist() == [[True] * 2]
    assert tokens.loss_mask.tolist() == [[True, True, True, False]]
    assert turns.loss_mask.tolist() == [[True, False]]
    assert turns.rewards.tolist() == [[1.0, 2.0]]


def test_burn_in_is_read_and_not_learnt(row) -> None:
    """Decisions stand at 0, 1, 3, 4; learning begins at position 3."""
    t = row("7|1 9|5|3 9", learn_from=3)
    assert pack_tokens([t], gamma=1.0).loss_mask.tolist() == [[False, False, True, True]]
    assert pack_turns([t], gamma=1.0).loss_mask.tolist() == [[False, True]]


@given(conversations(), st.floats(0, 1), st.floats(0, 1))
def test_per_token_equals_the_slow_twin_and_unpacks(
    packed_twin, t: Tokens, gamma: float, within: float
) -> None:
    batch = pack_tokens([t], gamma=gamma, gamma_within_turn=within, dtype=f64)
    slow = packed_twin(t, gamma, within)
    assert batch.decisions[0].tolist() == [d["decision"] for d in slow] + [len(t) - 1]
    assert batch.actions[0].tolist() == [d["action"] for d in slow]
    assert batch.rewards[0].tolist() == [d["reward"] for d in slow]
    assert batch.discounts[0].tolist() == [d["discount"] for d in slow]
    assert batch.loss_mask[0].tolist() == [d["learnt"] for d in slow]
    assert batch.behavior_logp[0].tolist() == t.token_logp[t.action].tolist()
    ids, after = batch.inputs[0], batch.decisions[0, :-1] + 1
    assert ids.tolist() == t.ids.tolist()
    assert ids[after].tolist() == batch.actions[0].tolist() == t.ids[t.action].tolist()


@given(conversations(), st.floats(0, 1))
def test_per_turn_unpacks_to_the_utterances(t: Tokens, gamma: float) -> None:
    """Positions decisions[k]+1 .. ends[k] are the k-th turn, stop included, and all turns are all actions."""
    batch = pack_turns([t], gamma=gamma, dtype=f64)
    opens, ends = batch.decisions[0, :-1].tolist(), batch.ends[0].tolist()
    spans = [range(d + 1, e + 1) for d, e in zip(opens, ends, strict=True)]
    assert [i for span in spans for i in span] == np.flatnonzero(t.action).tolist()
    assert [span[-1] for span in spans] == np.flatnonzero(t.turn_end).tolist()
    assert batch.rewards[0].tolist() == t.rewards[t.turn_end].tolist()
    assert batch.behavior_logp[0].tolist() == t.message_logp[t.turn_end].tolist()
    assert batch.decisions[0, -1] == len(t) - 1
    last = 0.0 if t.terminated else gamma
    assert batch.discounts[0].tolist() == [gamma] * (len(spans) - 1) + [last]


@given(st.lists(conversations(), min_size=2, max_size=4), st.sampled_from([pack_tokens, pack_turns]))
def test_a_row_is_the_same_alone_and_among_others(rows: list[Tokens], pack) -> None:
    """Behind it: reward 0, discount 0, mask False, the final position again; nothing before that moves."""
    batch = pack(rows, gamma=0.9, dtype=f64)
    for b, t in enumerate(rows):
        one = pack([t], gamma=0.9, dtype=f64)
        n = one.mask.shape[1]
        for name in ("rewards", "discounts", "mask", "loss_mask", "ends", "behavior_logp"):
            assert getattr(batch, name)[b, :n].tolist() == getattr(one, name)[0].tolist(), name
        assert batch.decisions[b, : n + 1].tolist() == one.decisions[0].tolist()
        assert set(batch.decisions[b, n:].tolist()) == {len(t) - 1}
        for name in ("rewards", "discounts", "mask", "loss_mask", "behavior_logp"):
            assert not getattr(batch, name)[b, n:].any(), name


def test_rows_keep_their_order(row) -> None:
    rows = [row("7|1 9"), row("7 7|2 2 9|7|4 9"), row("3|5 9")]
    forwards, backwards = (pack_tokens(x, gamma=1.0) for x in (rows, rows[::-1]))
    for name in ("inputs", "decisions", "ends", "actions", "rewards", "discounts", "mask", "loss_mask"):
        assert getattr(forwards, name).flip(0).tolist() == getattr(backwards, name).tolist(), name


def test_propensities_count_only_where_every_decision_has_one() -> None:
    """Two turns with log-probabilities -1 and -2 per message, none per token; then one of them missing."""
    known, partly = TokenWriter(), TokenWriter()
    for writer, second in ((known, -2.0), (partly, None)):
        for logp in (-1.0, second):
            writer.read([7])
            writer.act([1, 9], 0.0, logp)
    known, partly = (w.tokens(terminated=True, next_known=True, id="") for w in (known, partly))
    assert pack_turns([known], gamma=1.0).behavior_logp.tolist() == [[-1.0, -2.0]]
    assert pack_tokens([known], gamma=1.0).behavior_logp is None
    assert pack_turns([known, partly], gamma=1.0).behavior_logp is None


def test_a_batch_without_decisions_is_refused(row) -> None:
    with pytest.raises(ValueError, match="without a decision"):
        pack_tokens([row("1 2 3")], gamma=1.0)


@pytest.mark.parametrize("pack", [pack_tokens, pack_turns])
def test_rows_with_nothing_to_learn_do_not_stop_a_run(row, pack) -> None:
    """A one-word conversation cut right after the word is a legal log: there is just nothing to learn."""
    batch = pack([row("7|9", terminated=False, next_known=False)], gamma=1.0)
    assert batch.mask.tolist() == [[True]] and batch.loss_mask.tolist() == [[False]]


def test_moving_a_batch_keeps_it(row) -> None:
    batch = pack_tokens([row("7|1 9", [1.0])], gamma=0.9)
    moved = batch.to("meta")
    assert {moved.inputs.device.type, moved.rewards.device.type, moved.mask.device.type} == {"meta"}
    assert moved.behavior_logp is None and isinstance(moved, Batch)


def episode(n: int, terminated: bool, logp: bool = True) -> Episode:
    """Observations 10, 11, ...; actions 0, 1, ...; rewards 1/2, 3/2, ...; log-probabilities -1."""
    return Episode(
        observations=10 + np.arange(n + 1),
        actions=np.arange(n),
        rewards=np.arange(n) + 0.5,
        terminated=terminated,
        truncated=not terminated,
        behavior_logp=np.full(n, -1.0) if logp else None,
    )


def test_steps_by_hand() -> None:
    """An episode of 2 steps that was cut beside one of 3 that ended."""
    batch = pack_steps([episode(2, False), episode(3, True)], gamma=0.9, dtype=f64)
    assert batch.decisions.tolist() == [[0, 1, 2, 2], [0, 1, 2, 3]]
    assert batch.ends.tolist() == [[0, 1, 2], [0, 1, 2]]
    assert batch.actions.tolist() == [[0, 1, 0], [0, 1, 2]]
    assert batch.rewards.tolist() == [[0.5, 1.5, 0.0], [0.5, 1.5, 2.5]]
    assert batch.discounts.tolist() == [[0.9, 0.9, 0.0], [0.9, 0.9, 0.0]]
    assert batch.mask.tolist() == batch.loss_mask.tolist() == [[True, True, False], [True, True, True]]
    assert batch.behavior_logp.tolist() == [[-1.0, -1.0, 0.0], [-1.0, -1.0, -1.0]]
    assert batch.inputs.observation.tolist() == [[10, 11, 12, 0], [10, 11, 12, 13]]
    assert batch.inputs.previous_action.tolist() == [[0, 0, 1, 0], [0, 0, 1, 2]]
    assert batch.inputs.previous_reward.tolist() == [[0.0, 0.5, 1.5, 0.0], [0.0, 0.5, 1.5, 2.5]]
    assert batch.inputs.start.tolist() == [[True, False, False, False]] * 2


@given(st.lists(st.tuples(st.integers(1, 5), st.booleans()), min_size=1, max_size=4))
def test_steps_unpack_to_the_episodes(shapes: list[tuple[int, bool]]) -> None:
    episodes = [episode(n, ended) for n, ended in shapes]
    batch = pack_steps(episodes, gamma=0.5, dtype=f64)
    for b, e in enumerate(episodes):
        n = int(batch.mask[b].sum())
        assert batch.inputs.observation[b, batch.decisions[b, : n + 1]].tolist() == e.observations.tolist()
        assert batch.actions[b, :n].tolist() == e.actions.tolist()
        assert batch.rewards[b, :n].tolist() == e.rewards.tolist()
        assert (batch.discounts[b, n - 1] == 0) == e.terminated
        assert set(batch.decisions[b, n:].tolist()) == {n}


def test_one_episode_without_propensities_leaves_none() -> None:
    assert pack_steps([episode(2, True), episode(1, True, logp=False)], gamma=1.0).behavior_logp is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"actions": np.arange(0)}, "at least one action"),
        ({"observations": np.arange(2)}, "2 observations for 2 actions; expected 3"),
        ({"rewards": np.zeros(3)}, "3 rewards for 2 actions"),
        ({"behavior_logp": np.zeros(1)}, "1 behaviour log-probabilities for 2 actions"),
        ({"truncated": True}, "exactly one of terminated and truncated"),
    ],
)
def test_episodes_that_cannot_be_are_refused(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Episode(**(vars(episode(2, True)) | change))


def test_a_hundred_tokens_at_99_percent_each_are_a_third(row) -> None:
    """Why there are two discounts: .99^99 = .37 of the reward reaches the first of a hundred tokens."""
    t = row("7|" + "1 " * 99 + "9", [1.0])
    per_token = pack_tokens([t], gamma=0.99, gamma_within_turn=0.99, dtype=f64)
    per_turn = pack_tokens([t], gamma=0.99, dtype=f64)
    assert math.prod(per_token.discounts[0, :-1].tolist()) == pytest.approx(0.3697, abs=1e-4)
    assert math.prod(per_turn.discounts[0, :-1].tolist()) == 1.0


def test_the_conversation_of_the_docstring() -> None:
    """Read 0 1 2, say 3 4 (worth -.1), read 5 6, say 7 8 9 (worth 1), a true end; gamma is .9 a turn."""
    writer = TokenWriter()
    for read, said, reward in ((3, 2, -0.1), (2, 3, 1.0)):
        writer.read([0] * read)
        writer.act([1] * said, reward, None)
    row = writer.tokens(terminated=True, next_known=True, id="c")
    by_token, by_turn = (pack([row], gamma=0.9, dtype=torch.float64) for pack in (pack_tokens, pack_turns))
    assert by_token.decisions.tolist() == [[2, 3, 6, 7, 8, 9]] and by_token.ends.tolist() == [[3, 4, 7, 8, 9]]
    assert by_token.rewards.tolist() == [[0, -0.1, 0, 0, 1]]
    assert by_token.discounts.tolist() == [[1, 0.9, 1, 1, 0]]
    assert by_turn.decisions.tolist() == [[2, 6, 9]] and by_turn.ends.tolist() == [[4, 9]]
    assert by_turn.rewards.tolist() == [[-0.1, 1]] and by_turn.discounts.tolist() == [[0.9, 0]]


@given(conversations(), st.integers(8, 24), st.booleans())
def test_a_row_without_the_positions_that_nothing_is_read_at_is_the_same_experience(
    whole: Tokens, context: int, per_turn: bool
) -> None:
    """Features that say where each position stood: every value is read where it was, and all else is equal.

    Rows are cut too, so that there is burn-in, and turns that a cut tore apart.
    """
    rows = segments(whole, context)
    at = [np.arange(len(row), dtype=float)[:, None] for row in rows]
    seen = [row.of_decisions(x[row.read_at]) for row, x in zip(rows, at, strict=True)]
    if per_turn:
        one, other = (pack_turns(x, gamma=0.9, dtype=f64) for x in (rows, seen))
    else:
        one, other = (pack_tokens(x, gamma=0.9, gamma_within_turn=0.8, dtype=f64) for x in (rows, seen))
        assert torch.equal(one.actions, other.actions)
    for name in ("rewards", "discounts", "mask", "loss_mask"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name
    where = other.inputs.squeeze(-1)  # [B, T']
    assert torch.equal(where.gather(1, other.decisions).long(), one.decisions)
    assert torch.equal(where.gather(1, other.ends).long()[one.mask], one.ends[one.mask])


def test_the_turn_of_each_token_by_hand(row) -> None:
    """[7|1 2 9|5|3 9]: three tokens and two. Where a turn was torn, its rest begins a turn where this row
    learns; what stands before it there is in no turn, and has 0 as padding has."""
    whole, torn = row("7|1 2 9|5|3 9"), row("7|1 2 3 4 9|5|9", learn_from=3)
    assert turn_of_tokens([whole, torn]).tolist() == [[0, 0, 0, 1, 1, 0], [0, 0, 0, 1, 1, 2]]
    begins_within = torn.window(2, 8)
    assert turn_of_tokens([begins_within]).tolist() == [[0, 0, 0, 1]]
    batch, turns = pack_tokens([begins_within], gamma=1.0), pack_turns([begins_within], gamma=1.0)
    assert batch.loss_mask.tolist() == [[False, True, True, True]] and turns.ends.tolist() == [[3, 5]]
