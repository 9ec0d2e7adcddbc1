"""Acts by a field, by a function and by the sentence: every utterance has one, also what was never said."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from turnwise.data.acts.codebook import Utterance
from turnwise.data.acts.files import load_codes, save_codes
from turnwise.data.acts.labelled import by_field, by_function, by_sentence
from turnwise.data.acts.phrases import PhraseBook
from turnwise.data.acts.talks import Codes
from turnwise.envs.dialogue import Message
from turnwise.run.errors import InputError, SettingError


def said(text: str, *acts: str | None) -> Utterance:
    return Utterance(text, acts or (None,))


LOGGED = [
    *[said("Please check the battery", "check")] * 3,
    said("Kindly inspect the battery", "check"),
    said("Swap the screen", "swap"),
    said("Replace your screen now", "swap"),
]


def names(book: PhraseBook, *utterances: Utterance) -> list[str]:
    return [book.names[i] for i in book.read(utterances).acts]


def test_a_field_names_acts_and_words_stand_in_where_it_is_missing() -> None:
    book = by_field([*LOGGED, said("Inspect the battery please")], "agent_acts", other=True)
    assert book.names == ("check", "swap", "other")  # the most frequent first
    live = [said("please CHECK the battery!"), said("inspect the battery"), said("replace the screen")]
    assert names(book, *live) == ["check", "check", "swap"]
    assert names(book, said("anything", "swap"), said("Swap the screen", "unheard of")) == ["swap", "other"]
    found = book.read([*live, said("zzz qqq")])
    assert found.distances[0] == 0 and 0 < found.distances[1] < 1 and found.distances[3] >= 1
    assert names(book, said("zzz qqq"), said("")) == ["other", "other"]
    assert book.examples(0)[0][:2] == ("Please check the battery", 3)


def test_without_an_act_for_the_rest_the_nearest_sentence_decides() -> None:
    book = by_field(LOGGED, "agent_acts", other=False)
    assert book.names == ("check", "swap")
    assert names(book, said("the screen?", "unheard of"), said("")) == ["swap", "check"]


def test_messages_in_a_row_have_all_their_acts() -> None:
    rows = [said("hi\nwhy?", "greet", "ask"), said("hi", "greet"), said("hi\nhello", "greet", "greet")]
    book = by_field(rows, "partner_acts", other=False)
    assert book.names == ("greet", "greet + ask")
    assert names(book, *rows) == ["greet + ask", "greet", "greet"]


def test_a_side_without_a_field_is_refused() -> None:
    with pytest.raises(SettingError, match="partner_acts is 'field'"):
        by_field([said("hi")], "partner_acts", other=True)


def by_first_letter(text: str, before: Sequence[Message]) -> str:
    if text == "fail":
        raise KeyError("gone")
    return text[0] if text[0] != "7" else 7  # type: ignore[return-value]


def test_a_function_names_acts() -> None:
    book = by_function([said("apple"), said("axe"), said("bee")], by_first_letter, "agent_acts", other=True)
    assert book.names == ("a", "b", "other") and names(book, said("ant"), said("cow")) == ["a", "other"]


def test_a_function_that_fails_says_where() -> None:
    book = by_function([said("apple")], by_first_letter, "agent_acts", other=True)
    at = Utterance("fail", (), (Message("user", "hi"), Message("assistant", "a")))
    with pytest.raises(InputError, match=r"message 3 of a conversation, 'fail': KeyError: 'gone'"):
        book.read([at])
    with pytest.raises(InputError, match=r"'77': gave 7; expected the name of an act"):
        book.read([said("77")])
    with pytest.raises(SettingError, match="expected a module in "):
        by_function([said("a")], "no_such_module:f", "agent_acts", other=True)


def test_each_frequent_sentence_is_an_act_and_the_rest_is_other() -> None:
    rows = [
        said("Yes."),
        said("yes!"),
        said("Yes."),
        said("No, it is 10:30"),
        said("no it is 9:15"),
        said("so"),
    ]
    book = by_sentence(rows, other=False)
    assert book.names == ("Yes.", "No, it is {time}", "other")
    assert names(book, said("YES"), said("No, it is 12:00"), said("so"), said("zzz")) == [
        "Yes.",
        "No, it is {time}",
        "other",
        "other",
    ]
    assert by_sentence([said("so")], other=False).names == ("so",)  # nothing was said twice


def test_codebooks_come_back_from_their_folder(tmp_path: Path) -> None:
    function = f"{__name__}:by_first_letter"
    hellos = [*[said("Hi 100")] * 2, said("Yo")]
    codes = Codes(
        by_field(LOGGED, "agent_acts", other=False),
        by_function([said("apple"), said("bee"), said("bat")], by_first_letter, "partner_acts", other=True),
        by_sentence(hellos, other=True).with_own_words(hellos),
    )
    assert codes.opening.examples(0)[0].own == (("Hi 100", 2),)
    save_codes(codes, tmp_path / "acts")
    again = load_codes(tmp_path / "acts", functions={function: by_first_letter})
    asked = [said("inspect the screen"), said("bee"), said("yo"), said("hi 99"), said("apple pie", "swap")]
    for side in ("agent", "partner", "opening"):
        old, new = getattr(codes, side), getattr(again, side)
        assert old.names == new.names
        assert old.read(asked).acts.tolist() == new.read(asked).acts.tolist()
        assert old.read(asked).distances == pytest.approx(new.read(asked).distances, abs=1e-6)
        assert old.examples(0) == new.examples(0)
    (tmp_path / "acts" / "codes.npz").unlink()
    with pytest.raises(InputError, match="expected a folder of codebooks"):
        load_codes(tmp_path / "acts")


def test_a_number_of_acts_that_is_not_reached_is_said() -> None:
    """Nothing goes with the words of the agent here; the partner's acts are those of the log."""
    from turnwise.data.acts.build import build_codes
    from turnwise.data.dialogue import Dialogue

    talks = []
    for i in range(40):
        agent = Message("assistant", f"some words {'abcde'[i % 5]}", reward=0.0)
        talks.append(Dialogue((agent, Message("user", "yes", act="agreed")), True, id=str(i)))
    built = build_codes(talks, "discover", count=30)
    assert len(built.codes.acts) == 1
    assert "1 acts of the agent were found where count is 30: nothing tells more of them apart" in built.notes
    assert any("acts of the partner come by field" in note and "30" in note for note in built.notes)
    assert not any("count" in note for note in build_codes(talks, "discover").notes)
