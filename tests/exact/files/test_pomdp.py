from __future__ import annotations

import gzip
import os
import tracemalloc
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnwise.envs.pomdp import POMDP
from turnwise.envs.rows import Rows
from turnwise.exact.files.pomdp import read_pomdp
from turnwise.exact.files.write import write_pomdp
from turnwise.run.errors import InputError

HEADER = "discount: .5\nvalues: reward\nstates: a b\nactions: go stay\nobservations: x y\n"
TABLES = "T: * identity\nO: * uniform\nR: * : * : * : * 1\n"


@pytest.fixture
def read(tmp_path: Path) -> Callable[[str], POMDP]:
    def reader(text: str) -> POMDP:
        path = tmp_path / "p.pomdp"
        path.write_text(text, encoding="utf-8")
        return read_pomdp(path)

    return reader


Read = Callable[[str], POMDP]


def T(p: POMDP) -> np.ndarray:
    S, A, _ = p.shape
    return p.transitions.dense().reshape(A, S, S)


def emissions(p: POMDP) -> np.ndarray:
    S, A, O = p.shape
    return p.emissions.dense().reshape(A, S, O)


def paid(p: POMDP) -> np.ndarray:
    """[A, S, S] reward of each transition, nan where there is none."""
    S, A, _ = p.shape
    full = np.full((A * S, S), np.nan)
    full[p.transitions.of_entries(), p.transitions.indices] = p.rewards
    return full.reshape(A, S, S)


def same(p: POMDP, q: POMDP, *, atol: float = 0.0) -> None:
    assert p.shape == q.shape and p.discount == q.discount
    np.testing.assert_allclose(p.start, q.start, rtol=0, atol=atol)
    for one, other in ((p.transitions, q.transitions), (p.emissions, q.emissions)):
        np.testing.assert_array_equal(one.indptr, other.indptr)
        np.testing.assert_array_equal(one.indices, other.indices)
        np.testing.assert_allclose(one.data, other.data, rtol=0, atol=atol)
    np.testing.assert_allclose(p.rewards, q.rewards, rtol=0, atol=atol)
    np.testing.assert_array_equal(p.ends, q.ends)
    assert (p.seen_rewards is None) == (q.seen_rewards is None)
    if p.seen_rewards is not None and q.seen_rewards is not None:
        np.testing.assert_array_equal(p.seen_rewards.dense(), q.seen_rewards.dense())


# -- headers


def test_headers_come_in_any_order_with_colons_anyhow(read: Read) -> None:
    text = (
        "# a comment: not read\nobservations :2\nstart: b # the second\nactions\n:\ngo stay\nstates: a\nb\n"
        "values : rewards discount:0.25\n" + TABLES
    )
    p = read(text)
    assert (p.states, p.actions, p.observations) == (("a", "b"), ("go", "stay"), ("0", "1"))
    assert p.discount == 0.25 and p.start.tolist() == [0, 1] and p.name == "p"


def test_what_is_absent_has_its_default(read: Read) -> None:
    p = read("states: 4\nactions: 1\nobservations: 1\nT: 0 uniform\nO: 0 uniform\nR: * : * : * : * -2")
    assert p.discount == 1 and p.start.tolist() == [0.25] * 4
    assert p.expected_rewards().tolist() == [[-2] * 4]


def test_start_with_several_states_asks_for_include(read: Read) -> None:
    with pytest.raises(InputError, match=r":2: start: 'a c' are 2 states; .* mean start include: a c$"):
        read(f"states: a b c d\nstart: a c\nactions: 1\nobservations: 1\n{TABLES}")
    with pytest.raises(InputError, match=r"did you mean start include: 0 3$"):
        read(f"states: 4\nstart: 0 3\nactions: 1\nobservations: 1\n{TABLES}")
    with pytest.raises(InputError, match=r"start: 3 words; expected 4 probabilities"):
        read(f"states: 4\nstart: .5 .25 .25\nactions: 1\nobservations: 1\n{TABLES}")


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        ("start: .1 .2 .3 .4", [0.1, 0.2, 0.3, 0.4]),
        ("start: c", [0, 0, 1, 0]),
        ("start: 3", [0, 0, 0, 1]),
        ("start: uniform", [0.25] * 4),
        ("start include: a 3", [0.5, 0, 0, 0.5]),
        ("start exclude : d", [1 / 3, 1 / 3, 1 / 3, 0]),
        ("", [0.25] * 4),
    ],
)
def test_start_in_all_its_forms(read: Read, start: str, expected: list[float]) -> None:
    p = read(f"states: a b c d\n{start}\nactions: 1\nobservations: 1\n{TABLES}")
    np.testing.assert_allclose(p.start, expected, rtol=0, atol=1e-15)


def test_costs_are_rewards_with_the_other_sign(read: Read) -> None:
    p = read(HEADER.replace("reward", "cost") + "T: * uniform\nO: * uniform\nR: go : a : * : * 3\n")
    assert p.expected_rewards().tolist() == [[-3, 0], [0, 0]]
    assert not np.signbit(p.rewards[p.rewards == 0]).any()


# -- tables


def test_cells_rows_matrices_and_wildcards_in_the_order_written(read: Read) -> None:
    """T: go is the matrix with row b replaced; stay keeps the wildcards, one cell moved."""
    p = read(
        HEADER + "T: * : * : * 0.0\nT: * : * : a 1.0\nT: go\n.5 .5\n0 1\nT: go : b\n.25\n.75\n"
        "T: stay : b : a : 0\nT : stay:1:b 1.0\n"
        "O: go\nuniform\nO: go : b 1 0\nO: stay : * : x\n.75\nO: stay : * : y .25\nR: * : * : * : * 1\n"
    )
    assert T(p).tolist() == [[[0.5, 0.5], [0.25, 0.75]], [[1, 0], [0, 1]]]
    assert emissions(p).tolist() == [[[0.5, 0.5], [1, 0]], [[0.75, 0.25], [0.75, 0.25]]]


def test_a_later_reward_overwrites_an_earlier_one_even_with_a_wildcard(read: Read) -> None:
    """(go, a): 1 by the second line. (go, b) -> b: 5 by the third, then * -> b 7 by the fourth. stay: -1."""
    p = read(
        HEADER + "T: * uniform\nO: * uniform\nR: * : * : * : * -1\nR: go : * : * : * 1\n"
        "R: go : b : b : * 5\nR: * : b : b : * 7\n"
    )
    assert paid(p).tolist() == [[[1, 1], [1, 7]], [[-1, -1], [-1, 7]]]
    assert p.seen_rewards is None


def test_rewards_of_what_is_seen(read: Read) -> None:
    """O is 3/4 x, 1/4 y in a and x in b. Row form 4, 8 of go : a: into a 3/4 * 4 + 1/4 * 8 = 5.

    Into b the matrix's second row then overwrites: only x is seen, so that 6 is what go : a : b pays.
    """
    p = read(
        HEADER + "T: * uniform\nO: * : a .75 .25\nO: * : b 1 0\n"
        "R: go : a\n1 2\n6 3\nR: go : a : a 4 8\nR: stay : * : * : y 100\nR: stay : a : a : * 0\n"
    )
    assert paid(p).tolist() == [[[5, 6], [0, 0]], [[0, 0], [25, 0]]]
    assert p.seen_rewards is not None
    dense = p.seen_rewards.dense().reshape(2, 2, 2, 2)  # all transitions exist
    assert dense[0, 0].tolist() == [[4, 8], [6, 0]]
    assert dense[1].tolist() == [[[0, 0], [0, 0]], [[0, 100], [0, 0]]]


def test_a_reward_tied_to_the_only_thing_seen_does_not_depend_on_it(read: Read) -> None:
    p = read(HEADER + "T: * uniform\nO: * : a : x 1\nO: * : b : y 1\nR: * : * : b : y 2\n")
    assert p.seen_rewards is None and paid(p)[0].tolist() == [[0, 2], [0, 2]]


def test_reset_is_the_start_distribution_and_an_end(read: Read) -> None:
    p = read(
        HEADER + "start: .25 .75\nT: * : a : b 1\nT: go : b reset\nT: stay : b : b 1\nO: * uniform\n" + R1
    )
    assert T(p)[0].tolist() == [[0, 1], [0.25, 0.75]]
    assert p.ends.tolist() == [False, True, True, False, False]


R1 = "R: * : * : * : * 1\n"


def test_entering_a_goal_ends(read: Read) -> None:
    p = read(HEADER + "goals: 1\nT: * uniform\nO: * uniform\n" + R1)
    assert p.ends.tolist() == [False, True] * 4


def test_entering_a_state_where_nothing_happens_ends(read: Read) -> None:
    """No action leaves b, and nothing is paid there; with a reward in b, or a way out, it is like others."""
    chain = HEADER + "T: * : a uniform\nT: * : b : b 1\nO: * uniform\nR: * : a : * : * 1\n"
    assert read(chain).ends.tolist() == [False, True, True] * 2
    assert not read(chain + "R: stay : b : * : y 1\n").episodic
    assert not read(chain + "T: stay : b .5 .5\n").episodic


def test_rows_a_little_off_are_divided_with_one_warning(read: Read) -> None:
    text = HEADER + "start: .33333 .66666\nT: * uniform\nT: go : a .99992 .00001\nO: * uniform\n" + R1
    with pytest.warns(UserWarning, match=r"p\.pomdp: 2 rows") as caught:
        p = read(text)
    assert len(caught) == 1
    np.testing.assert_allclose(p.start, [33333 / 99999, 66666 / 99999])
    np.testing.assert_allclose(T(p)[0, 0], [99992 / 99993, 1 / 99993])


def test_packed_files_are_read(tmp_path: Path, read: Read) -> None:
    path = tmp_path / "q.POMDP.gz"
    path.write_bytes(gzip.compress((HEADER + TABLES).encode()))
    same(read_pomdp(path), read(HEADER + TABLES))
    assert read_pomdp(path).name == "q"


def test_a_large_table_is_never_laid_out(read: Read) -> None:
    """A ring of 4,000 states: full tables of T and R would be 4 * 4000^2 * 8 bytes = 512 MB each."""
    S = 4000
    steps = "\n".join(f"T: * : {s} : {(s + 1) % S} 1.0\nT: 3 : {s} : {(s + 1) % S} 0\n" for s in range(S))
    tracemalloc.start()
    try:
        p = read(
            f"states: {S}\nactions: 4\nobservations: 2\nT: * : * : * 0.0\n{steps}T: 3 identity\n"
            "O: * : * : * 0.5\nR: * : * : * : * -1\nR: 3 : * : 7 : * 2\nR: 2 : 5 : * : 1 4\n"
        )
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 50e6
    assert p.transitions.indices.reshape(4, S)[[0, 3], 9].tolist() == [10, 9]
    expected = np.full((4, S), -1.0)
    expected[3, 7], expected[2, 5] = 2.0, 0.5 * -1 + 0.5 * 4
    np.testing.assert_array_equal(p.expected_rewards(), expected)


# -- what is wrong


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", r"no actions: line"),
        (HEADER, r"no T: line"),
        (HEADER + "T: * identity\nR: * : * : * : * 1", r"no O: line"),
        (HEADER + "T: * identity\nO: * uniform", r"no R: line"),
        ("states: 2\nT: go : a : b 1", r":2: a table comes before actions:; expected actions: first"),
        (HEADER + "states: 2", r":6: a second states:"),
        (HEADER + TABLES + "goals: c", r":9: 'c' is no state; expected one of 2: a, b"),
        (HEADER + "T: run : a : b 1", r":6: 'run' is no action"),
        (HEADER + "T: go : 2 : b 1", r":6: '2' is no state"),
        (HEADER + "O: go : a : z 1", r":6: 'z' is no observation"),
        (HEADER + "T: go : a : b 1.2.3", r":6: '1\.2\.3'; expected a number for T \(number 1 of 1\)"),
        (HEADER + "T: go : a : b nan", r":6: 'nan'; expected a number for T"),
        (HEADER + "R: go : a : b : x 1e999", r":6: '1e999'; expected a number for R"),
        (HEADER + "T: go : a : b -0.5", r":6: T: -0\.5; expected a probability"),
        (
            HEADER + "T: go : a\n.5\nT: go : b 1 0",
            r":7: nothing more; expected a number for T \(number 2 of 2\)",
        ),
        (HEADER + "T: go : a .5 .5 .5", r":6: '\.5'; expected a line that begins with"),
        (HEADER + "T: go a .5 .5", r":6: 'a'; expected a number for T \(number 1 of 4\)"),
        (HEADER + "R: go 1", r":6: R: names an action alone; expected at least R: action : state"),
        (HEADER + "O: go identical", r":6: 'identical'; expected a number for O \(number 1 of 4\)"),
        (HEADER + "O: go : a reset", r":6: O: reset here"),
        (HEADER + "T: go : a identity", r":6: T: identity; expected it for a square"),
        (HEADER + "T: go : a reset\nstart: a", r":7: start: comes after a row that resets"),
        (HEADER + "T: go : a", r":6: nothing more; expected a number for T \(number 1 of 2\)"),
        (HEADER + "T:", r":6: the file ends; expected the name of an action"),
        (HEADER + "start: .5 .4\n" + TABLES, r":6: start: probabilities sum to 0\.9"),
        (HEADER + "start: .5 .4 .1\n" + TABLES, r":6: start: 3 words; expected 2 probabilities"),
        (HEADER + "start: 1.5 -.5\n" + TABLES, r":6: start: 2 words"),
        (HEADER + "start exclude: a b\n" + TABLES, r":6: start exclude: names all states"),
        (HEADER + TABLES + "T: go : a .5 .49", r":9: T: probabilities of action go, state a sum to 0\.99"),
        (HEADER + "T: go identity\nO: * uniform\n" + R1, r"p\.pomdp: T: .* action stay, state a sum to 0;"),
        ("discount: 1.5", r":1: discount: '1\.5'; expected a number from 0 to 1"),
        ("discount:\nvalues: reward", r":1: nothing after discount:"),
        ("values: points", r":1: values: 'points'; expected reward or cost"),
        ("states: a b a", r":1: states: 'a' comes twice; expected different names"),
        ("states: a * b", r":1: states: '\*' is no name; expected names"),
        ("states: 0", r":1: states: '0'; expected names or a count"),
        ("states: 1e9", r":1: states: '1e9'"),
        ("states 3", r":1: '3' after states; expected a colon"),
        ("costs: 1 2", r":1: 'costs'; expected a line that begins with"),
        (
            "states: 9000\nactions: 9000\nobservations: 1\nT: * uniform",
            r":4: 9,000 states, 9,000 actions and 1 observations; expected at most",
        ),
        (
            "states: 9000\nactions: 9\nobservations: 1\n" + TABLES.replace("identity", "uniform"),
            r"T: more than",
        ),
    ],
)
def test_what_is_wrong_is_named_with_its_line(read: Read, text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        read(text)


def test_files_that_are_no_text_are_refused(tmp_path: Path) -> None:
    latin = tmp_path / "latin.pomdp"
    latin.write_bytes(b"# ok\n# caf\xe9\n")
    cut = tmp_path / "cut.gz"
    cut.write_bytes(gzip.compress(os.urandom(5000))[:3000])
    broken = tmp_path / "broken.gz"
    broken.write_bytes(b"\x1f\x8b\x08\x00" + b"\xff" * 40)
    with pytest.raises(InputError, match=r"latin\.pomdp:2: not text in UTF-8"):
        read_pomdp(latin)
    for path in (cut, broken, tmp_path, tmp_path / "none.pomdp"):
        with pytest.raises(InputError, match=path.name):
            read_pomdp(path)


WORDS = [
    *"TOR:::::**#ab01",
    ".5",
    "1",
    "-1",
    "nan",
    "go",
    "stay",
    "x",
    "uniform",
    "identity",
    "reset",
    "\n",
    "\n",
]
WORDS += ["states", "start", "include", "goals", "discount", "values", "cost", "2", "1e400", "²", "\x00", "é"]


def only_input_errors(data: bytes, path: Path) -> None:
    path.write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            read_pomdp(path)
        except InputError as e:
            assert "\n" not in str(e)


@given(head=st.booleans(), words=st.lists(st.sampled_from(WORDS), max_size=30))
def test_a_soup_of_words_is_read_or_refused(tmp_path_factory: object, head: bool, words: list[str]) -> None:
    path = tmp_path_factory.getbasetemp() / "soup.pomdp"  # type: ignore[attr-defined]
    only_input_errors((HEADER * head + " ".join(words)).encode(), path)


WHOLE = (
    HEADER + "start: .25 .75\ngoals: b\nT: * identity\nT: go : a reset\nO: go\n.5 .5\n1 0\nO: stay uniform\n"
    "R: * : * : * : * -1\nR: go : a : b\n1 2\nR: stay : b : * : y 3\n"
)


@given(
    cuts=st.lists(
        st.tuples(st.integers(0, len(WHOLE)), st.integers(0, 8), st.binary(max_size=4)), max_size=4
    ),
    packed=st.booleans(),
)
def test_a_damaged_file_is_read_or_refused(tmp_path_factory: object, cuts: list, packed: bool) -> None:
    data = gzip.compress(WHOLE.encode()) if packed else WHOLE.encode()
    for at, length, insert in cuts:
        data = data[:at] + insert + data[at + length :]
    only_input_errors(data, tmp_path_factory.getbasetemp() / "damaged.pomdp")  # type: ignore[attr-defined]


# -- writing


@pytest.mark.parametrize("name", ["p.pomdp", "p.pomdp.gz"])
def test_what_was_written_is_read_again(tmp_path: Path, read: Read, name: str) -> None:
    """Resets, goals, idle states and rewards of what is seen, all in one."""
    first = read(WHOLE)
    assert first.episodic and first.seen_rewards is not None
    write_pomdp(first, tmp_path / name)
    again = read_pomdp(tmp_path / name)
    same(first, again)
    assert (again.states, again.actions, again.observations) == (
        first.states,
        first.actions,
        first.observations,
    )
    assert [f.name for f in tmp_path.iterdir() if f.suffix == ".part"] == []


@st.composite
def problems(draw: st.DrawFn) -> POMDP:
    S, A, O = (draw(st.integers(1, 4)) for _ in range(3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))

    def rows(*shape: int) -> np.ndarray:
        table = rng.random(shape) * (rng.random(shape) < 0.5)
        table[..., 0] += table.sum(-1) == 0
        return table / table.sum(-1, keepdims=True)

    e = rows(A, S, O)
    r = rng.normal(size=(A, S, S, O)) * (e > 0)[:, None]
    if draw(st.booleans()):
        r = r.sum(-1)
    ends = rng.random(S) < 0.3
    return POMDP.from_arrays(rows(A, S, S), e, r, discount=rng.random(), start=rows(S), ends=ends)


@given(p=problems())
def test_any_problem_comes_back_from_its_file(tmp_path_factory: object, p: POMDP) -> None:
    path = tmp_path_factory.getbasetemp() / "random.pomdp"  # type: ignore[attr-defined]
    write_pomdp(p, path)
    again = read_pomdp(path)
    np.testing.assert_allclose(again.rewards, p.rewards, rtol=0, atol=1e-12)
    one = replace(p, rewards=again.rewards, seen_rewards=again.seen_rewards)
    same(one, again)
    if again.seen_rewards is not None:
        assert p.seen_rewards is not None
        np.testing.assert_array_equal(again.seen_rewards.dense(), p.seen_rewards.dense())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"states": ("a", "two words")}, "states: 'two words' cannot be written"),
        ({"ends": np.array([False, True] * 3 + [False] * 2)}, "action go from state a to b ends"),
        ({"initial": Rows.from_dense(np.eye(2))}, "no observation before the first action"),
    ],
)
def test_what_the_format_cannot_say_is_refused_and_nothing_written(
    tmp_path: Path, read: Read, change: dict, words: str
) -> None:
    p = read(HEADER + "T: * uniform\nO: * uniform\nR: * : a : * : * 1\n")
    with pytest.raises(InputError, match=words):
        write_pomdp(replace(p, **change), tmp_path / "out.pomdp")
    assert not (tmp_path / "out.pomdp").exists()


def test_where_nothing_can_be_written_nothing_is_left(tmp_path: Path, read: Read) -> None:
    p = read(HEADER + TABLES)
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "p.pomdp" / "below_a_file", tmp_path / "folder", tmp_path / "none" / "q.pomdp"):
        with pytest.raises(InputError, match=f"{path.name}: cannot be written"):
            write_pomdp(p, path)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["folder", "p.pomdp"]


def test_an_idle_state_that_does_not_end_cannot_be_written(tmp_path: Path, read: Read) -> None:
    p = read(HEADER + "T: * : * : b 1\nO: * uniform\nR: * : a : * : * 1\n")
    assert p.ends.all()
    with pytest.raises(InputError, match="does not end"):
        write_pomdp(replace(p, ends=np.zeros(4, bool)), tmp_path / "out.pomdp")


# -- real files


@pytest.fixture(scope="module")
def folder() -> Path:
    beside = Path(__file__).resolve().parents[3].parent / "shared" / "data"
    found = Path(os.environ.get("TURNWISE_DATA", beside)) / "pomdp"
    if not found.is_dir():
        pytest.skip(f"the collected .pomdp files are not at {found}; set TURNWISE_DATA to the data folder")
    return found


SHAPES = {
    "1d.POMDP": (4, 2, 2, 0.75),
    "4x3.95.POMDP": (11, 4, 6, 0.95),
    "4x4.pomdp": (16, 4, 2, 0.95),
    "RockSample_4_4.POMDP.gz": (257, 9, 2, 0.95),
    "RockSample_5_5.POMDP.gz": (801, 10, 2, 0.95),
    "bridge-repair.POMDP": (5, 12, 5, 1.0),
    "cheese.95.POMDP": (11, 4, 7, 0.95),
    "concert.POMDP": (2, 3, 2, 1.0),
    "ejs1.POMDP": (3, 4, 2, 1.0),
    "episodic/4x3.POMDP": (12, 4, 7, 0.95),
    "episodic/cheese.95.POMDP": (11, 4, 7, 0.95),
    "episodic/heavenhell.POMDP": (21, 4, 12, 0.99),
    "episodic/network.POMDP": (7, 4, 2, 0.95),
    "episodic/tmaze2.POMDP": (9, 4, 5, 0.9),
    "episodic/tmaze5.POMDP": (15, 4, 5, 0.9),
    "hallway.original.pomdp": (60, 5, 21, 0.95),
    "hallway.pomdp": (60, 5, 21, 0.95),
    "heavenhell.pomdp": (20, 4, 11, 0.99),
    "loadunload.pomdp": (10, 2, 3, 0.95),
    "mini-hall2.POMDP": (13, 3, 9, 0.95),
    "paint.95.POMDP": (4, 4, 2, 0.95),
    "parr95.95.POMDP": (7, 3, 6, 0.95),
    "shuttle.95.POMDP": (8, 3, 5, 0.95),
    "tag.POMDP.gz": (870, 5, 30, 0.95),
    "tiger-grid.POMDP": (36, 5, 17, 0.95),
    "tiger.95.POMDP": (2, 3, 2, 0.95),
    "tiger.aaai.POMDP": (2, 3, 2, 0.75),
    "tiger.symbolic.pomdp": (2, 3, 2, 0.95),
}
OFF = {"1d.POMDP": 2, "4x4.pomdp": 5, "tag.POMDP.gz": 5}
"""rows that do not sum to 1"""
EPISODIC = {"RockSample_4_4.POMDP.gz", "RockSample_5_5.POMDP.gz", "hallway.pomdp", "tag.POMDP.gz"} | {
    f"episodic/{name}.POMDP" for name in ("4x3", "heavenhell", "tmaze2", "tmaze5")
}
"""by goals, resets or a last state where nothing happens; episodic/cheese.95 pays 1 a step at its goal"""


@pytest.mark.parametrize("file", sorted(SHAPES))
def test_real_files_are_read_and_written(folder: Path, tmp_path: Path, file: str) -> None:
    if file in OFF:
        with pytest.warns(UserWarning, match=f": {OFF[file]} rows"):
            p = read_pomdp(folder / file)
    else:
        p = read_pomdp(folder / file)
    assert (*p.shape, p.discount) == SHAPES[file]
    assert p.episodic == (file in EPISODIC)
    write_pomdp(p, tmp_path / "again.pomdp")
    same(p, read_pomdp(tmp_path / "again.pomdp"))


def test_ejs7_is_refused_for_a_row_that_sums_to_1_1(folder: Path) -> None:
    with pytest.raises(InputError, match=r"ejs7\.POMDP:20: O: .* action 1, state 1 sum to 1\.1"):
        read_pomdp(folder / "ejs7.POMDP")


def test_tiger_cell_by_cell_is_tiger(folder: Path) -> None:
    same(
        read_pomdp(folder / "tiger.symbolic.pomdp"),
        replace(read_pomdp(folder / "tiger.95.POMDP"), name=""),
        atol=1e-15,
    )


def test_hallway_that_resets_is_hallway_that_goes_on_with_ends(folder: Path) -> None:
    """States 56 to 59 are the goal; what follows them is the start, which one file calls `reset`."""
    resets, goes_on = read_pomdp(folder / "hallway.pomdp"), read_pomdp(folder / "hallway.original.pomdp")
    assert not goes_on.episodic
    state = resets.transitions.of_entries() % 60
    np.testing.assert_array_equal(resets.ends, state >= 56)
    same(replace(resets, ends=goes_on.ends), goes_on, atol=1e-15)


def test_tag_pays_for_the_catch_and_stops(folder: Path) -> None:
    """29 goals, entered only by catching: 10 for it where robot and target share a cell, else -10."""
    with pytest.warns(UserWarning, match="5 rows"):
        p = read_pomdp(folder / "tag.POMDP.gz")
    goal = np.isin(p.transitions.indices, np.arange(29, 870, 30))
    np.testing.assert_array_equal(p.ends, goal)
    row = p.transitions.of_entries()
    left = row % 870 % 30 != 29
    assert set(p.rewards[goal & left].tolist()) == {10.0}
    assert set(p.rewards[~goal].tolist()) == {-1.0, -10.0}
