"""Choosing among proposals, and going on from the one that was chosen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from turnwise.envs.tasks.helpdesk.task import HelpDesk
from turnwise.models.lm.parts import trunk_of
from turnwise.models.lm.policies import LmPolicy
from turnwise.rollout.conversations import Conversation, converse
from turnwise.rollout.engines.rerank import Reranker

CONTEXT = 160
LANES = 250
GOOD, BAD = 9, 10
OPENING = [5, 6, 7]


def features_after(trunk: Any, ids: list[int]) -> Tensor:
    with torch.inference_mode():
        return trunk(input_ids=torch.tensor([ids])).last_hidden_state[0, -1]


@pytest.fixture(scope="module")
def say_one_word(
    tiny: Callable[..., Any], fixed: Callable[..., Any], chat: Any
) -> Callable[[int, float, float, int], np.ndarray]:
    """How often the better of two equally likely words is said, over many first turns."""
    policy = fixed(tiny(), {GOOD: 0.5, BAD: 0.5})
    reader = trunk_of(tiny("gpt2"))
    good = features_after(reader, [*OPENING, GOOD, chat.stop])
    bad = features_after(reader, [*OPENING, BAD, chat.stop])
    assert (good - bad).abs().max() > 0.1

    def score(features: Tensor) -> Tensor:
        """1 after the good word and 0 after the bad one, from what the reader makes of them."""
        near = torch.stack([(features - x).abs().amax(-1) for x in (bad, good)])
        assert float(near.amin(0).max()) < 1e-10
        return near.argmin(0).double()

    def said(proposals: int, beta: float, sign: float, rounds: int) -> np.ndarray:
        model = Reranker(
            policy,
            reader,
            lambda f, last: sign * score(f),
            lanes=LANES,
            proposals=proposals,
            beta=beta,
            context=CONTEXT,
            stop=chat.stop,
            max_new_tokens=1,
        )
        words = []
        for r in range(rounds):
            for lane in range(LANES):
                model.reset(lane, seed=1000 * r + lane)
                model.submit(lane, OPENING)
            while new := model.collect():
                words += [u.ids[0] for u in new]
        return np.array(words)

    return said


@pytest.mark.parametrize(
    ("proposals", "beta", "expected"),
    [
        (1, 50.0, 0.5),
        (2, 0.0, 0.5),
        (4, 0.0, 0.5),
        (2, float(np.log(3)), 0.625),
        (2, 1e6, 0.75),
        (4, 1e6, 0.9375),
    ],
)
def test_how_often_the_better_word_is_said(
    proposals: int, beta: float, expected: float, say_one_word: Callable[..., np.ndarray]
) -> None:
    """Two words of probability 1/2, Q = 1 and 0.

    Of one proposal, or at beta 0, the choice does not look at Q: 1/2. Of two: both good 1/4, both bad 1/4,
    one of each 1/2, where softmax(ln 3 * Q) says the good one in 3/(3+1) of the cases: 1/4 + 1/2 * 3/4 =
    .625. At a beta beyond measure it is said unless no proposal is good: 1 - 1/4, 1 - 1/16. Six standard
    errors of 1,000 draws; a right choice fails in fewer than one of 10^8 seeds.
    """
    words = say_one_word(proposals, beta, 1.0, 4)
    assert len(words) == 1000
    margin = 6 * np.sqrt(expected * (1 - expected) / 1000)
    assert (words == GOOD).mean() == pytest.approx(expected, abs=margin)


def test_a_score_turned_round_prefers_the_other(say_one_word: Callable[..., np.ndarray]) -> None:
    """1 - 1/16 of the time, as above."""
    assert (say_one_word(4, 1e6, -1.0, 4) == BAD).mean() == pytest.approx(0.9375, abs=0.046)


def reranked(
    tiny: Callable[..., Any],
    chat: Any,
    *,
    lanes: int,
    seed: int = 2,
    episodes: int = 8,
    seen: list[float] | None = None,
    **options: Any,
) -> list[Conversation]:
    """HelpDesk with three proposals a turn and a score of no meaning that differs between utterances."""
    lm, reader = tiny(), trunk_of(tiny("gpt2", seed=1))

    def score(features: Tensor, last: Tensor) -> Tensor:
        q = features[:, 0]
        if seen is not None:
            seen.extend(q.tolist())
        return q

    settings = {"context": CONTEXT, "max_new_tokens": 7} | options
    model = Reranker(
        LmPolicy(lm), reader, score, lanes=lanes, proposals=3, beta=4.0, stop=chat.stop, **settings
    )
    return converse(model, HelpDesk(), chat, episodes=range(episodes), seed=seed, lanes=lanes)


def test_the_conversation_goes_on_from_what_was_chosen(
    tiny: Callable[..., Any], chat: Any, worst_logp_error: Callable[..., float]
) -> None:
    """Were the memory that of another proposal, the next turn's recorded log-probabilities would differ from
    those of one pass over what was said; and the reader's from the scores that it gave."""
    seen: list[float] = []
    held = reranked(tiny, chat, lanes=3, seen=seen)
    lm, reader = tiny(), trunk_of(tiny("gpt2", seed=1))
    assert np.mean([len(c.dialogue.turns) for c in held]) > 3
    assert worst_logp_error(held, lambda ids: lm(ids).logits.log_softmax(-1)) < 1e-10
    for c in held:
        t = c.tokens
        with torch.inference_mode():
            q = reader(input_ids=torch.as_tensor(t.ids[:CONTEXT]).unsqueeze(0)).last_hidden_state[0, :, 0]
        for end in np.flatnonzero(t.turn_end):
            at_stop = end if t.ids[end] == chat.stop else end + 1
            assert np.abs(np.array(seen) - float(q[at_stop])).min() < 1e-10


def test_the_seed_decides_and_lanes_do_not(tiny: Callable[..., Any], chat: Any) -> None:
    alone, beside, again, other = (
        [c.tokens.ids.tolist() for c in reranked(tiny, chat, lanes=lanes, seed=seed)]
        for lanes, seed in ((1, 2), (5, 2), (5, 2), (5, 3))
    )
    assert alone == beside == again
    assert alone != other


def test_proposals_that_the_context_cuts_off(tiny: Callable[..., Any], chat: Any) -> None:
    """All of them, in the end: what the first one said is recorded as a turn without its end."""
    held = reranked(tiny, chat, lanes=4, episodes=12, context=50, max_new_tokens=100)
    cut = [c for c in held if not c.dialogue.terminated]
    assert len(cut) >= 6
    for c in cut:
        assert c.tokens.next_known
        assert not c.tokens.turn_end[-1]
    assert any(c.tokens.action[-1] and len(c.tokens) == 50 for c in cut)
