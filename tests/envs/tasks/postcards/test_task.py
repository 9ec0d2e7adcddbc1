"""Postcards: gold by hand, the best reply by brute force, the writer's numbers, conversations of one turn."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnwise.envs.dialogue import Message
from turnwise.envs.tasks.postcards import rules
from turnwise.envs.tasks.postcards import words as lexicon
from turnwise.envs.tasks.postcards.exact import LONGEST, best_words, ceiling
from turnwise.envs.tasks.postcards.rules import FOLLOWS, STEP, terms_of, worths
from turnwise.envs.tasks.postcards.task import Postcards
from turnwise.envs.tasks.postcards.words import ASKS, KIND_OF, KINDS, WORDS, Ask, ask_of, wording, words_of

TASK = Postcards()
BEACH = Ask("beach", "mum", "cheerful")
PROMPT = (Message("user", wording(BEACH)),)


def total(words: Any, worth: Any) -> float:
    return sum(terms_of(words, worth).values())


# Gold by hand


def test_a_card_by_hand() -> None:
    """hello mum we swim and our sunny sand, great sand waves cheers: 12 words, for the beach, mum, cheerful.

    fitting: mum .4, swim .45, sunny .3, sand .45 and then .15, waves .45: 2.2
    frame: hello .4, cheers .4
    fluency: greeting name +, name subject +, subject verb +, verb joint +, joint article +, article tone +,
        tone noun +, noun zeal 0, zeal noun +, noun noun -, noun closing +: 9 - 1 = 8 steps of .1
    zeal: .4 - .1; length: -.03 * 2^2
    """
    terms = TASK.terms(PROMPT, "hello mum we swim and our sunny sand, great sand waves cheers!")
    expected = {"fitting": 2.2, "strange": 0, "frame": 0.8, "fluency": 0.8, "zeal": 0.3, "length": -0.12}
    assert terms == pytest.approx(expected | {"unknown": 0})
    reply = "Hello mum we swim AND our sunny sand great sand waves cheers"
    assert TASK.gold(PROMPT, reply) == pytest.approx(3.98)


def test_a_bad_card_by_hand() -> None:
    """cheers boss climb zzz climb ahoy great: 7 words, all wrong.

    strange: boss -.25, climb twice -.2 each: -.65; frame: cheers is not last, ahoy not first: -.6
    fluency: closing name, name verb, verb unknown, unknown verb, verb greeting -, greeting zeal 0: -.5
    zeal .3; length -.03 * 3^2; unknown -.35
    """
    terms = TASK.terms(PROMPT, "cheers boss climb zzz climb ahoy great")
    expected = {"fitting": 0, "strange": -0.65, "frame": -0.6, "fluency": -0.5, "zeal": 0.3, "length": -0.27}
    assert terms == pytest.approx(expected | {"unknown": -0.35})


def test_frames_of_another_tone_and_words_that_are_first_and_last() -> None:
    assert TASK.terms(PROMPT, "ahoy mum love")["frame"] == pytest.approx(0.15 + 0.15)
    assert TASK.terms(PROMPT, "hello")["frame"] == pytest.approx(0.4)
    assert TASK.terms(PROMPT, "cheers hello")["frame"] == pytest.approx(-0.6)


def test_repeats_fade_and_wrong_words_do_not() -> None:
    """1 + 1/3 + 1/9 + 1/27 = 40/27."""
    assert TASK.terms(PROMPT, "swim swim swim swim")["fitting"] == pytest.approx(0.45 * 40 / 27)
    assert TASK.terms(PROMPT, "climb climb climb climb")["strange"] == pytest.approx(-0.8)


def test_zeal_and_length_turn() -> None:
    """Zeal: 0, .3, .4, .3, 0, -.5. Length: nothing at ten words, as much below as above."""
    assert [rules.zeal_worth(z) for z in range(6)] == pytest.approx([0, 0.3, 0.4, 0.3, 0, -0.5])
    assert [rules.length_worth(n) for n in (0, 9, 10, 11, 20)] == pytest.approx([-3, -0.03, 0, -0.03, -3])


def test_nothing_said_costs_its_length() -> None:
    for reply in ("", "  \n"):
        assert TASK.gold(PROMPT, reply) == pytest.approx(-3)


@given(st.text())
def test_gold_of_any_text(text: str) -> None:
    """n words outside the lexicon: n - 1 bad neighbourhoods, the cost of each, the length."""
    n = len(words_of(text))
    value = TASK.gold(PROMPT, text)
    assert value <= TASK.best_value(PROMPT) + 1e-9
    if not any(word in KIND_OF for word in words_of(text)):
        expected = -0.35 * n - 0.1 * max(n - 1, 0) - 0.03 * (n - 10) ** 2
        assert value == pytest.approx(expected)


def test_what_is_asked_is_read_from_the_last_message() -> None:
    assert ask_of((Message("system", "Be kind."), *PROMPT)) == BEACH
    for strange in ((), (Message("user", "Write a poem."),)):
        with pytest.raises(ValueError, match="prompt: expected the request for a postcard"):
            TASK.gold(strange, "hello")


def test_the_lexicon() -> None:
    """60 words, each of one kind; the words of a prompt fit its place, name and tone and no other's."""
    assert len(WORDS) == 60 == sum(len(words) for words in lexicon.LEXICON.values())
    for ask in ASKS:
        good = sorted(KIND_OF[word] for word, value in worths(ask).items() if value >= 0.3)
        assert good == sorted(["closing", "greeting", "name", "noun", "noun", "verb", *["tone"] * 3])


# The best reply


REDUCED = ("hello", "mum", "sand", "swim", "sunny", "great", "the", "and", "we", "cheers", "peak")


@pytest.mark.parametrize("ask", [BEACH, Ask("mountains", "boss", "funny"), Ask("lake", "mum", "cheerful")])
@pytest.mark.parametrize("longest", [2, 3, 4])
def test_best_by_brute_force(ask: Ask, longest: int) -> None:
    """Every reply of at most four of eleven words and of one that nobody knows."""
    worth = {word: value for word, value in worths(ask).items() if word in REDUCED}
    replies = (r for n in range(longest + 1) for r in itertools.product((*REDUCED, "zzz"), repeat=n))
    value, words = best_words(worth, longest)
    assert value == pytest.approx(max(total(r, worth) for r in replies), abs=1e-12)
    assert total(words, worth) == pytest.approx(value)


def test_best_by_brute_force_over_kinds() -> None:
    """All 8^6 sequences of six kinds, each kind's words used by falling worth, between a greeting and a
    closing or without. (Below ten words more are better: the best of at most eight words has eight.)"""
    worth = worths(BEACH)
    middle = [kind for kind in KINDS if kind not in ("greeting", "closing")]
    gain = {"name": 0.4, "noun": 0.45, "verb": 0.45, "tone": 0.3}
    n = 6
    best = -np.inf
    step = np.array([[FOLLOWS[a, b] for b in middle] for a in middle])
    kinds = np.array(list(itertools.product(range(8), repeat=n)))
    fluency = step[kinds[:, :-1], kinds[:, 1:]].sum(1)
    fit = {"name": 1, "noun": 2, "verb": 1, "tone": 3}
    content = np.array([rules.zeal_worth(z) for z in range(n + 1)])[(kinds == middle.index("zeal")).sum(1)]
    for kind, first in gain.items():
        uses = [first / 3 ** (k // fit[kind]) for k in range(n)]
        content = content + np.cumsum([0, *uses])[(kinds == middle.index(kind)).sum(1)]
    ends = np.array([FOLLOWS[kind, "closing"] for kind in middle])[kinds[:, -1]] + 0.4
    starts = np.array([FOLLOWS["greeting", kind] for kind in middle])[kinds[:, 0]] + 0.4
    for opened, closed in itertools.product((0, 1), repeat=2):
        sums = fluency + content + opened * starts + closed * ends + rules.length_worth(n + opened + closed)
        best = max(best, float(sums.max()))
    assert best_words(worth, n + 2)[0] == pytest.approx(best)


def test_what_is_left_out_of_the_search_is_never_best() -> None:
    """A stray greeting or closing, an unknown word: "and" in its place loses less fluency than they cost."""
    for kind, cost in (("greeting", rules.STRAY), ("closing", rules.STRAY), ("unknown", rules.OUTSIDE)):
        follows = {**{(a, b): -STEP for a in (*KINDS, kind) for b in (*KINDS, kind)}, **FOLLOWS}
        into = max(follows[a, kind] - FOLLOWS[a, "joint"] for a in KINDS)
        out = max(follows[kind, b] - FOLLOWS["joint", b] for b in KINDS)
        assert max(into, 0) + max(out, 0) < cost


def test_longer_replies_are_never_best() -> None:
    """Above `LONGEST` words the ceiling is lower than the best, and falls with every further word."""
    for ask in (BEACH, Ask("castle", "boss", "formal")):
        worth = worths(ask)
        best = best_words(worth)[0]
        ceilings = [ceiling(worth, n) for n in range(LONGEST + 1, 60)]
        assert ceilings[0] < best
        assert all(b < a for a, b in itertools.pairwise(ceilings))


def test_the_best_reply_has_the_best_value() -> None:
    """All prompts are alike, so one value is the best of all."""
    for prompt in TASK.prompts()[::7]:
        assert TASK.gold(prompt, TASK.best_reply(prompt)) == pytest.approx(TASK.best_value(prompt))
        assert TASK.best_value(prompt) == pytest.approx(4.63)


def test_no_change_of_a_word_improves_the_best_reply() -> None:
    for prompt in TASK.prompts()[::67]:
        words = TASK.best_reply(prompt).split()
        worth = worths(ask_of(prompt))
        for i in range(len(words) + 1):
            changed = [[*words[:i], *words[i + 1 :]]]
            changed += [[*words[:i], w, *words[i + drop :]] for w in (*WORDS, "zzz") for drop in (0, 1)]
            assert max(total(c, worth) for c in changed) <= TASK.best_value(prompt) + 1e-9


# Prompts and the writer


def test_prompts_and_their_split() -> None:
    """192 prompts, 48 of them held out; what is learnt from has every pair of two attributes."""
    prompts, (learnt, held) = TASK.prompts(), TASK.split()
    assert len({p[0].content for p in prompts}) == 192
    assert (len(learnt), len(held)) == (144, 48)
    assert sorted(p[0].content for p in learnt + held) == sorted(p[0].content for p in prompts)
    for a, b in itertools.combinations(range(3), 2):
        pairs = [{(ask_of(p)[a], ask_of(p)[b]) for p in some} for some in (learnt, prompts)]
        assert pairs[0] == pairs[1]


def written(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(gold, words, words of zeal) of n postcards, the prompts in turn."""
    rng = np.random.default_rng(0)
    prompts = TASK.prompts()
    cards = [(prompts[i % 192], TASK.write(prompts[i % 192], rng)) for i in range(n)]
    words = [text.split() for _, text in cards]
    assert {w for card in words for w in card} == set(WORDS)
    zeal = [sum(w in lexicon.ZEAL for w in card) for card in words]
    return np.array([TASK.gold(*c) for c in cards]), np.array([len(w) for w in words]), np.array(zeal)


def test_the_writer_is_mediocre() -> None:
    """Gold .80 +- 1.07; 35% of the way from any words (-1.31) to the best (4.63); 8 +- 3 words.
    9,600 cards: a standard error of .011 of both means; the margins are four of them and more."""
    gold, words, _ = written(9600)
    rng = np.random.default_rng(1)
    babble = np.array([TASK.gold(p, TASK.babble(rng)) for p in TASK.prompts() * 50])
    assert gold.mean() == pytest.approx(0.80, abs=0.05)
    assert gold.std() == pytest.approx(1.07, abs=0.05)
    assert babble.mean() == pytest.approx(-1.31, abs=0.05)
    way = (gold.mean() - babble.mean()) / (TASK.best_value(PROMPT) - babble.mean())
    assert way == pytest.approx(0.355, abs=0.02)
    assert words.mean() == pytest.approx(8, abs=0.15)
    assert words.std() == pytest.approx(3, abs=0.15)
    assert words.min() >= 2
    assert words.max() <= 16


def test_there_is_something_to_be_fooled_by() -> None:
    """In what the writer writes gold rises with length and with zeal, as far as most cards go; beyond both it
    falls. More than four in ten cards have zeal, fewer than one in twenty too much of it."""
    gold, words, zeal = written(9600)
    assert np.corrcoef(gold, words)[0, 1] > 0.5
    by_length = [gold[words == n].mean() for n in range(2, 12)]
    assert all(b > a for a, b in itertools.pairwise(by_length))
    by_zeal = [gold[zeal == z].mean() for z in range(4)]
    assert by_zeal[0] < by_zeal[1] < by_zeal[2] > by_zeal[3]
    assert (zeal > 0).mean() > 0.4
    assert (zeal > 2).mean() < 0.05
    long = TASK.best_reply(PROMPT).split()
    more = total([*long[:-1], *["amazing", "waves"] * 6, "cheers"], worths(BEACH))
    assert more < total(long, worths(BEACH)) - 5


def test_the_writer_repeats_itself_with_its_generator() -> None:
    texts = [[TASK.write(PROMPT, rng) for _ in range(5)] for rng in map(np.random.default_rng, (3, 3, 4))]
    assert texts[0] == texts[1] != texts[2]


# Conversations of one turn


def test_a_conversation_is_one_turn_and_its_reward_is_gold() -> None:
    task = Postcards()
    openings = task.reset([0, 5], [1, 2])
    responses = task.step([5, 0], ["hello", "we swim"])
    for response, prompt, reply in zip(responses, openings[::-1], ["hello", "we swim"], strict=True):
        assert response.terminated
        assert not response.truncated
        assert response.messages == ()
        assert response.reward == task.gold(prompt, reply)
        assert response.info == task.terms(prompt, reply)
    asked = ask_of(openings[0])
    assert task.hidden(0) == {**asked._asdict(), "best": task.best_value(openings[0])}
    with pytest.raises(ValueError, match="lane 0: the conversation is over"):
        task.step([0], ["hello"])
    assert task.reset([0], [1]) == openings[:1]
    task.step([0], ["hello"])


def test_prompts_are_drawn_uniformly_from_those_asked() -> None:
    """48 prompts, 4,800 seeds: 100 of each, with a standard deviation of ten; none is five away."""
    held = TASK.split()[1]
    task = Postcards(held)
    drawn = [p[0].content for p in task.reset(range(4800), range(4800))]
    counts = np.array([drawn.count(p[0].content) for p in held])
    assert counts.sum() == 4800
    assert abs(counts - 100).max() < 50


def test_the_lane_loop_runs_on_it() -> None:
    """An untrained model with the task's words: each conversation is the prompt and one reply, whose reward
    stands at its last token and is the gold of its text."""
    import torch

    from turnwise.data.chat.format import ChatFormat
    from turnwise.models.lm.fresh import llama, train_tokenizer
    from turnwise.models.lm.policies import LmPolicy
    from turnwise.rollout.conversations import converse
    from turnwise.rollout.engines.sampler import Sampler

    texts = [p[0].content for p in TASK.prompts()] + [" ".join(WORDS)] * 20
    chat = ChatFormat(train_tokenizer(texts, 400, 64))
    torch.manual_seed(0)
    lm = llama(len(chat.tokenizer), width=16, layers=1, heads=2, context=64, eos=0, pad=1).eval()
    sampler = Sampler(LmPolicy(lm), lanes=4, context=64, stop=chat.stop, max_new_tokens=12)
    task = Postcards(TASK.split()[0])
    held = converse(sampler, task, chat, episodes=range(10), seed=0, lanes=4)
    for c in held:
        prompt, (reply,) = c.dialogue.messages[:-1], c.dialogue.turns
        assert c.dialogue.terminated
        assert len(prompt) == 1
        assert reply.reward == task.gold(prompt, reply.content)
        end = np.flatnonzero(c.tokens.turn_end)
        assert c.tokens.rewards[end].tolist() == [pytest.approx(reply.reward)]
        assert c.info == task.terms(prompt, reply.content)
        assert c.hidden["best"] == task.best_value(prompt)
