"""Words of a command line: a path may stand alone, and a flag of several values may be repeated."""

from dataclasses import dataclass

import pytest

from turnwise.cli.say import parse
from turnwise.cli.words import split_words, with_path
from turnwise.run.errors import InputError


@dataclass(frozen=True)
class Source:
    logs: str | None = None
    json: bool = False


@dataclass(frozen=True)
class Reading:
    source: Source = Source()
    map_role: tuple[str, ...] = ()
    gamma: float = 1.0


@pytest.mark.parametrize(
    "words",
    [
        ["x.jsonl", "--gamma", "-1"],
        ["--gamma", "-1", "x.jsonl"],
        ["--json", "x.jsonl", "--gamma=-1"],
        ["--gamma", "-1", "--logs", "x.jsonl"],
        ["--logs=x.jsonl", "--gamma", "-1", "--map-role", "a=b"],
        ["x.jsonl", "--map-role", "a=b", "--gamma", "-1", "--map-role", "c=d", "e=f"],
    ],
)
def test_a_path_may_stand_anywhere_without_its_flag(words):
    a = parse(Reading, words, "data check", "", alone="logs")
    assert (a.source.logs, a.gamma, a.source.json) == ("x.jsonl", -1.0, "--json" in words)
    assert a.map_role == {5: ("a=b",), 8: ("a=b", "c=d", "e=f")}.get(len(words), ())


def test_words_of_a_flag_that_nobody_knows_are_its_own():
    found = split_words(Reading, ["--gama", "2", "x.jsonl"])
    assert (found.flags, found.alone, found.rest) == ({"gama": ["2"]}, ["x.jsonl"], ["--gama", "2"])


@pytest.mark.parametrize("words", [["a.jsonl", "b.jsonl"], ["a.jsonl", "--logs", "b.jsonl"]])
def test_two_paths_are_refused_instead_of_one_being_lost(words):
    with pytest.raises(
        InputError, match=r"^expected one logs, by itself or after --logs; found a\.jsonl and"
    ):
        with_path(Reading, words, "logs")
