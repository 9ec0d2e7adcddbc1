from __future__ import annotations

import gzip
import os
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnwise.envs.pomdp import POMDP
from turnwise.envs.problems.rock_sample import rock_sample
from turnwise.exact.files.pomdp import read_pomdp
from turnwise.exact.files.pomdpx import read_pomdpx
from turnwise.run.errors import InputError

Read = Callable[[str], POMDP]


def table(variable: str, parents: str, *entries: tuple[str, str], kind: str = "CondProb") -> str:
    tag = "ProbTable" if kind == "CondProb" else "ValueTable"
    rows = "".join(
        f"<Entry><Instance>{i}</Instance><{tag}>{numbers}</{tag}></Entry>\n" for i, numbers in entries
    )
    head = f"<Var>{variable}</Var><Parent>{parents}</Parent>"
    return f'<{kind}>{head}<Parameter type = "TBL">\n{rows}</Parameter></{kind}>\n'


def document(**change: str) -> str:
    """A lamp that a switch turns, in a room that is light or dark; the lamp is seen, the room heard.

    The room follows the lamp of the same step (a table given a variable of the next moment).
    """
    parts = {
        "variables": '<StateVar vnamePrev="lamp0" vnameCurr="lamp1" fullyObs="true">'
        "<ValueEnum>off on</ValueEnum></StateVar>"
        '<StateVar vnamePrev="room0" vnameCurr="room1"><NumValues>2</NumValues></StateVar>'
        '<ObsVar vname="noise"><ValueEnum>hum hush</ValueEnum></ObsVar>'
        '<ActionVar vname="hand"><ValueEnum>wait switch</ValueEnum></ActionVar><RewardVar vname="pay"/>',
        "start": table("lamp0", "null", ("-", "1 0"))
        + table("room0", "lamp0", ("off -", "0.75 .25"), ("on s0", "1")),
        "transitions": table("room1", "lamp1", ("- -", "identity"))
        + table(
            "lamp1",
            "hand lamp0",
            ("* - -", "identity"),
            ("switch - -", "0 1 1 0"),
            ("switch on -", "uniform"),
        ),
        "sensors": table("noise", "room1 hand", ("* * *", "0.5"), ("s1 wait -", "0.25 0.75")),
        "rewards": table("pay", "hand", ("switch", "-1"), kind="Func")
        + table("pay2", "room1 noise", ("s1 -", "4 8"), kind="Func"),
    } | change
    return (
        f"<?xml version='1.0'?><pomdpx><Discount>0.5</Discount><Variable>{parts['variables']}</Variable>"
        f"<InitialStateBelief>{parts['start']}</InitialStateBelief>\n<StateTransitionFunction>"
        f"{parts['transitions']}</StateTransitionFunction>\n<ObsFunction>{parts['sensors']}</ObsFunction>\n"
        f"<RewardFunction>{parts['rewards']}</RewardFunction></pomdpx>"
    )


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def reader(text: str) -> POMDP:
        path = tmp_path / "p.pomdpx"
        path.write_text(text, encoding="utf-8")
        return read_pomdpx(path)

    return reader


def test_factors_are_multiplied_out(read: Read) -> None:
    """States off,s0 off,s1 on,s0 on,s1. Waiting keeps the lamp, and the room is where the lamp is.

    Switching off -> on is certain; on -> either by a half (the last entry overwrites), the room with it.
    """
    p = read(document())
    assert p.states == ("off,s0", "off,s1", "on,s0", "on,s1")
    assert p.observations == ("hum,off", "hum,on", "hush,off", "hush,on") and p.discount == 0.5
    assert p.start.tolist() == [0.75, 0.25, 0, 0] and p.initial is None
    t = p.transitions.dense().reshape(2, 4, 4)
    assert t[0].tolist() == [[1, 0, 0, 0]] * 2 + [[0, 0, 0, 1]] * 2
    assert t[1].tolist() == [[0, 0, 0, 1]] * 2 + [[0.5, 0, 0, 0.5]] * 2
    o = p.emissions.dense().reshape(2, 4, 4)
    assert o[0, 3].tolist() == [0, 0.25, 0, 0.75] and o[1, 3].tolist() == [0, 0.5, 0, 0.5]
    assert o[0, 0].tolist() == [0.5, 0, 0.5, 0]


def test_rewards_are_summed_and_may_depend_on_what_is_heard(read: Read) -> None:
    """Waiting with the lamp on: 1/4 * 4 + 3/4 * 8 = 7. Switching it on: -1 + (4 + 8) / 2 = 5.

    Switching when it is on leaves it on half the time: -1 + 6 / 2 = 2.
    """
    p = read(document())
    np.testing.assert_allclose(p.expected_rewards(), [[0, 0, 7, 7], [5, 5, 2, 2]])
    assert p.seen_rewards is not None
    wait_on = int(p.transitions.indptr[2])
    assert p.seen_rewards.dense()[wait_on].tolist() == [0, 4, 0, 8]


def test_a_lamp_that_is_drawn_is_seen_at_once(read: Read) -> None:
    p = read(document(start=table("lamp0", "null", ("-", "uniform")) + table("room0", "null", ("-", "1 0"))))
    assert p.start.tolist() == [0.5, 0, 0.5, 0]
    assert p.initial is not None and p.initial.indices.tolist() == [0, 0, 1, 1]


def test_states_where_nothing_happens_end(read: Read) -> None:
    """A lamp that stays on. While the hand is paid for, nothing ends; when only `off` pays, `on` ends."""
    stays = table("room1", "lamp1", ("- -", "identity")) + table("lamp1", "lamp0", ("* -", "0 1"))
    assert not read(document(transitions=stays)).episodic
    quiet = table("pay", "lamp0", ("off", "2"), kind="Func")
    p = read(document(transitions=stays, rewards=quiet))
    assert p.ends.all() and p.expected_rewards().tolist() == [[2, 2, 0, 0]] * 2


def test_rows_a_little_off_are_divided_with_a_warning(read: Read) -> None:
    with pytest.warns(UserWarning, match=r"p\.pomdpx: 1 rows"):
        p = read(document(sensors=table("noise", "null", ("-", "0.33333 0.66666"))))
    np.testing.assert_allclose(p.emissions.row(0)[1].tolist(), [1 / 3, 2 / 3])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", r":1: no XML"),
        ("<pomdpx>", r":1: no XML"),
        ("<html/>", r"<html>; expected <pomdpx>"),
        ("<pomdpx/>", r"<pomdpx>: no <Variable>"),
        ("<?xml version='1.0' encoding='klingon'?><pomdpx/>", r"unknown encoding|encoding that cannot"),
        (document().replace("0.5</Discount>", "2</Discount>"), r"<Discount>: '2'; expected a number from 0"),
        (document(variables=""), r"<Variable>: 0 states, 0 actions"),
        (document().replace("room1", "room0"), r"vnameCurr='room0'; expected a name of its own"),
        (document().replace("<NumValues>2", "<NumValues>many"), r"<NumValues>: 'many'"),
        (document().replace("off on<", "off off<"), r"<ValueEnum>: 'off off'; expected different"),
        (document(start=table("lamp0", "null", ("-", "1 0"))), r"<InitialStateBelief>: no table of room0"),
        (
            document(sensors=table("smell", "null")),
            r"<ObsFunction>: a table of 'smell'; expected one of noise",
        ),
        (document(sensors=table("noise", "room0", ("* *", ".5"))), r"noise: depends on 'room0'"),
        (
            document(sensors=table("noise", "null", ("loud", "1"))),
            r"entry 'loud': 'loud'; expected one of hum hush",
        ),
        (document(sensors=table("noise", "null", ("-", "1"))), r"entry '-': 1 numbers; expected 2"),
        (document(sensors=table("noise", "null", ("-", "2 -1"))), r"entry '-': '2'; expected a probability"),
        (document(sensors=table("noise", "null", ("- -", "1"))), r"entry '- -': 2 words; expected 1"),
        (
            document(sensors=table("noise", "room1", ("s0 -", "1 0"))),
            r"noise: probabilities for s1 sum to 0;",
        ),
        (document(rewards=""), r"<RewardFunction>: no <Func>"),
        (document(rewards=table("pay", "null", ("", "1"), kind="Func")), r"pay: depends on nothing"),
        (document().replace('"TBL"', '"DD"'), r"a table of type 'DD'; expected TBL"),
        (
            document(transitions=table("room1", "lamp1") + table("lamp1", "room1")),
            r"room1: depends on lamp1; expected only hand, lamp0, room0",
        ),
    ],
)
def test_what_is_wrong_is_named(read: Read, text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        read(text)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("noise</Var>", "smell</Var>", "18: <ObsFunction>: a table of 'smell'; expected one of noise"),
        ("0.25 0.75", "1 2 3", "20: <ObsFunction>: noise: entry 's1 wait -': 3 numbers; expected 2"),
        (
            "0.25 0.75",
            "0.25 .5",
            "18: <ObsFunction>: noise: probabilities for s1 wait sum to 0.75; expected 1",
        ),
        (
            "room1 hand",
            "room1 foot",
            "18: <ObsFunction>: noise: depends on 'foot'; expected different ones of ",
        ),
        ("0.5</Disc", "2</Disc", "1: <Discount>: '2'; expected a number from 0 to 1"),
        (
            "</Entry>\n<Entry>",
            "</Entry>\n<Entry",
            "6: no XML (not well-formed (invalid token)); expected a .pomd",
        ),
    ],
)
def test_what_is_wrong_is_named_with_its_line(read: Read, old: str, new: str, message: str) -> None:
    """Each entry has a line. The tables before are lines 1 to 3, 4 to 7, 9 to 11, 12 to 16."""
    with pytest.raises(InputError) as error:
        read(document().replace(old, new))
    assert f"p.pomdpx:{message}" in str(error.value)


WHOLE = document()


@given(
    cuts=st.lists(
        st.tuples(
            st.integers(0, len(WHOLE)),
            st.integers(0, 8),
            st.sampled_from(["", "*", "-", "9", "<", " on", "s1", "é"]),
        ),
        max_size=3,
    )
)
def test_a_damaged_file_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, cuts: list) -> None:
    text = WHOLE
    for at, length, insert in cuts:
        text = text[:at] + insert + text[at + length :]
    path = tmp_path_factory.getbasetemp() / "damaged.pomdpx"
    path.write_bytes(gzip.compress(text.encode()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            read_pomdpx(path)
        except InputError as e:
            assert "\n" not in str(e)


def test_more_combinations_than_fit_are_refused(read: Read) -> None:
    """22 bits are 4,194,304 states."""
    n = 22
    bits = "".join(
        f'<StateVar vnamePrev="b{i}" vnameCurr="c{i}"><NumValues>2</NumValues></StateVar>' for i in range(n)
    )
    text = document(
        variables=bits + '<ObsVar vname="o"><NumValues>1</NumValues></ObsVar>'
        '<ActionVar vname="a"><NumValues>1</NumValues></ActionVar>',
        start="".join(table(f"b{i}", "null", ("*", "uniform")) for i in range(n)),
        transitions="".join(table(f"c{i}", "null", ("*", "uniform")) for i in range(n)),
        sensors=table("o", "null", ("*", "1")),
        rewards=table("pay", "a", ("a0", "1"), kind="Func"),
    )
    with pytest.raises(InputError, match="4,194,304 combinations of states"):
        read(text)


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.pomdpx"):
        with pytest.raises(InputError, match=path.name):
            read_pomdpx(path)


# -- real files


@pytest.fixture(scope="module")
def folder() -> Path:
    beside = Path(__file__).resolve().parents[3].parent / "shared" / "data"
    found = Path(os.environ.get("TURNWISE_DATA", beside)) / "pomdp"
    if not found.is_dir():
        pytest.skip(f"the collected .pomdp files are not at {found}; set TURNWISE_DATA to the data folder")
    return found


@pytest.mark.parametrize(
    ("file", "text"), [("Tiger.pomdpx.gz", "tiger.95.POMDP"), ("Hallway.pomdpx.gz", "hallway.original.pomdp")]
)
def test_both_formats_say_the_same(folder: Path, file: str, text: str) -> None:
    """But that Hallway.pomdpx pays for (state, action) what hallway.original pays on arriving, on average."""
    p, q = read_pomdpx(folder / "pomdpx" / file), read_pomdp(folder / text)
    assert p.shape == q.shape and p.discount == q.discount and p.name == file.split(".")[0]
    np.testing.assert_array_equal(p.transitions.dense(), q.transitions.dense())
    np.testing.assert_array_equal(p.emissions.dense(), q.emissions.dense())
    np.testing.assert_array_equal(p.start, q.start)
    np.testing.assert_allclose(p.expected_rewards(), q.expected_rewards(), rtol=0, atol=1e-15)
    assert p.seen_rewards is None and not p.episodic


def test_rock_sample_7_8_is_the_one_in_code(folder: Path) -> None:
    """50 places (one after the end) by 2^8 rocks; the rover's place is seen, which code leaves to arithmetic.

    States after the end are 256 in the file, one in code; the file has six digits.
    """
    p, q = read_pomdpx(folder / "pomdpx" / "RockSample_7_8.pomdpx.gz"), rock_sample(7, 8)
    S, last = 50 * 256, 49 * 256
    assert p.shape == (S, 13, 2 * 50) and p.initial is None
    np.testing.assert_array_equal(p.start[:last], q.start[:last])
    to, own = p.transitions.indices.reshape(13, S), q.transitions.indices.reshape(13, last + 1)
    np.testing.assert_array_equal(np.minimum(to[:, :last], last), own[:, :last])
    np.testing.assert_array_equal(p.ends, (to >= last).ravel())
    np.testing.assert_array_equal(p.expected_rewards()[:, :last], q.expected_rewards()[:, :last])
    seen = p.emissions.indices.astype(np.int64)
    state = p.emissions.of_entries() % S
    np.testing.assert_array_equal(seen % 50, state // 256)
    good = np.bincount(p.emissions.of_entries(), p.emissions.data * (seen < 50), 13 * S).reshape(13, S)
    np.testing.assert_allclose(
        good[:, :last], q.emissions.dense()[:, 0].reshape(13, -1)[:, :last], rtol=0, atol=5.1e-7
    )
