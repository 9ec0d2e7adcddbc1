"""Acts from words that hardly repeat: found by what is answered, and read where they were never logged."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from turnwise.data.acts.build import build_codes
from turnwise.data.acts.codebook import Utterance
from turnwise.data.acts.files import load_codes, save_codes
from turnwise.data.acts.talks import cut_turns
from turnwise.data.dialogue import Dialogue
from turnwise.envs.dialogue import Message
from turnwise.run.errors import InputError, SettingError

PARTS = ("lamp", "radio", "clock")
OPENERS = ("please", "now", "well then", "okay", "right", "so", "if you can", "thanks and")
ENDS = ("", "today", "once more", "for me", "right away", "if you do not mind")


def question(part: int, other: int, rng: np.random.Generator) -> str:
    """Both parts are named; what is meant is the one that is not denied."""
    ways = (
        f"look at the {PARTS[part]} not the {PARTS[other]}",
        f"leave the {PARTS[other]} and test the {PARTS[part]}",
    )
    return f"{rng.choice(OPENERS)} {rng.choice(ways)} {rng.choice(ENDS)}"


def answer(part: int, broken: bool, rng: np.random.Generator) -> str:
    good = rng.choice(["fine", "good", "sound"])
    ways = (f"the {PARTS[part]} is not {good}", f"it is never {good} that {PARTS[part]}")
    sound = (f"the {PARTS[part]} is {good}", f"it is always {good} that {PARTS[part]}")
    return f"{rng.choice(OPENERS)} {rng.choice(ways if broken else sound)} {rng.choice(ENDS)}"


def desk(conversations: int, seed: int) -> Iterator[tuple[Dialogue, list[int], list[int]]]:
    """Six questions about parts, one of which is broken; what was meant by both sides."""
    rng = np.random.default_rng(seed)
    for i in range(conversations):
        fault = int(rng.integers(3))
        messages, meant, answers = [Message("user", "hello it does not work")], list[int](), list[int]()
        for _ in range(6):
            part = int(rng.integers(3))
            other = (part + int(rng.integers(1, 3))) % 3
            broken = (part == fault) == (rng.random() < 0.95)
            messages.append(Message("assistant", question(part, other, rng)))
            messages.append(Message("user", answer(part, broken, rng)))
            meant.append(part)
            answers.append(2 * part + broken)
        yield Dialogue(tuple(messages), id=str(i), rated_by="nothing"), meant, answers


def flat(parts: Iterable[list[int]]) -> list[int]:
    return [x for part in parts for x in part]


Logged = tuple[list[Dialogue], list[int], list[int]]


@pytest.fixture(scope="module")
def logged() -> Logged:
    rows = list(desk(600, 0))
    return [r[0] for r in rows], [x for r in rows for x in r[1]], [x for r in rows for x in r[2]]


def test_acts_are_found_where_no_word_tells_them(logged: Logged, tmp_path: Path) -> None:
    dialogues, meant, answers = logged
    built = build_codes(dialogues)
    read = built.codes.talks(dialogues)
    assert adjusted_rand_score(meant, np.concatenate([t.acts for t in read])) > 0.97
    assert adjusted_rand_score(answers, np.concatenate([t.answers for t in read])) > 0.9
    assert len(built.codes.acts) == 3 and len(built.codes.openings) == 1
    # Talk that was never logged is read as it was meant.
    new, wanted, heard = zip(*desk(100, 1), strict=True)
    again = built.codes.talks(new)
    assert adjusted_rand_score(flat(wanted), np.concatenate([t.acts for t in again])) > 0.95
    assert adjusted_rand_score(flat(heard), np.concatenate([t.answers for t in again])) > 0.85
    # The folder reads alike.
    save_codes(built.codes, tmp_path / "acts")
    loaded = load_codes(tmp_path / "acts").talks(new)
    assert all(
        (x.acts == y.acts).all() and (x.answers == y.answers).all()
        for x, y in zip(again, loaded, strict=True)
    )


def test_embedded_sentences_are_split_as_words_are(
    logged: Logged,
) -> None:
    from turnwise.data.acts.spaces import Words

    dialogues, meant, _ = logged
    dialogues, meant = dialogues[:300], meant[:1800]
    words = Words.learn([m.content for d in dialogues for m in d.messages])
    built = build_codes(dialogues, embed=lambda texts: words.vectors(texts).toarray(), embed_name="mine")
    assert adjusted_rand_score(meant, np.concatenate([t.acts for t in built.codes.talks(dialogues)])) > 0.95
    with pytest.raises(InputError, match="mine gave an array of shape"):
        build_codes(dialogues, embed=lambda texts: np.zeros((1, 3)), embed_name="mine")


def test_talk_in_which_nothing_tells_is_one_act_and_says_so() -> None:
    rng = np.random.default_rng(0)
    words = ("red", "blue", "green", "grey", "pink")
    talks = [
        Dialogue(tuple(Message(("user", "assistant")[k % 2], str(rng.choice(words))) for k in range(6)))
        for _ in range(200)
    ]
    built = build_codes(talks, "discover", "discover")
    assert len(built.codes.acts) == 1 and "are one act" in built.notes[0]
    assert built.codes.partner.read([Utterance("never said"), Utterance("")]).acts.tolist() == [0, 0]


def test_odd_logs() -> None:
    alone = [Dialogue((Message("assistant", ""), Message("assistant", "hm")))]
    codes = build_codes(alone).codes
    assert [t.answers.tolist() for t in codes.talks(alone)] == [[0, 0]]  # nobody ever answers
    with pytest.raises(SettingError, match="agent_acts is 'feild'; expected auto, field"):
        build_codes(alone, "feild")
    with pytest.raises(SettingError, match="data is None"):
        build_codes([])
    half = [Dialogue((Message("user", "hi"), Message("assistant", "a", act="x"), Message("assistant", "b")))]
    assert "1 of 2 utterances have no act" in build_codes(half).notes[0]
    assert len(cut_turns(half[0].messages).said) == 2
    assert build_codes(half, "field").codes.acts == ("x",)
