"""Reading and writing logs: what comes out, and which words each kind of bad input is refused with."""

import datetime
import gzip
import json
import math
import string
import sys
from types import MappingProxyType

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from turnwise.data.dialogue import ROLES, Dialogue
from turnwise.data.logs import FIELDS, read_logs, to_row, write_jsonl
from turnwise.envs.dialogue import Message
from turnwise.run.errors import InputError

HELLO = {"role": "user", "content": "It does not start."}
REPLY = {"role": "assistant", "content": "Please test the fuse.", "reward": -0.05, "behavior_logp": -1.5}
GOOD = {"messages": [HELLO, REPLY]}
fuzz = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def written(folder, *rows, name="logs.jsonl"):
    """A file with one line a row: bytes as they are, anything else as JSON (NaN included)."""
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    path = folder / name
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def refusal(source, **options):
    with pytest.raises(InputError) as caught:
        read_logs(source, **options)
    assert str(caught.value).isprintable(), "one line, nothing that a terminal would obey"
    return str(caught.value)


def test_a_conversation_with_every_field(tmp_path):
    """-0.05 of the message and the outcome of 1 make 0.95; the outcome goes to the agent's last message."""
    first = {"role": "assistant", "content": "Hello.", "reward": 2}
    row = {"id": 7, "messages": [{"role": "system", "content": "Be brief."}, first, HELLO, REPLY, HELLO]}
    row |= {"outcome": 1, "truncated": True, "fault": "fuse", "scores": [1, None], "gone": None}
    (dialogue,) = read_logs(written(tmp_path, row))
    assert dialogue == Dialogue(
        messages=(
            Message("system", "Be brief."),
            Message("assistant", "Hello.", 2.0),
            Message("user", "It does not start."),
            Message("assistant", "Please test the fuse.", 0.95, -1.5),
            Message("user", "It does not start."),
        ),
        terminated=False,
        id="7",
        metadata={"fault": "fuse", "scores": [1, None]},
    )


def test_null_is_absent_everywhere(tmp_path):
    bare = {"messages": [HELLO, {"role": "assistant", "content": "Hm."}], "note": {"a": 1}, "id": "n"}
    nulls = {
        "id": "n",
        "outcome": None,
        "terminated": None,
        "truncated": None,
        "messages": [
            HELLO | {"reward": None, "behavior_logp": None},
            {"role": "assistant", "content": "Hm.", "reward": None, "behavior_logp": None},
        ],
        "note": {"a": 1, "b": None},
        "other": None,
    }
    assert read_logs(written(tmp_path, nulls)) == read_logs(written(tmp_path, bare, name="bare.jsonl"))


@pytest.mark.parametrize(
    ("ending", "terminated"),
    [
        ({}, True),
        ({"terminated": True}, True),
        ({"terminated": False}, False),
        ({"truncated": True}, False),
        ({"truncated": False}, True),
        ({"terminated": True, "truncated": False}, True),
        ({"terminated": False, "truncated": True}, False),
    ],
)
def test_how_it_ended(tmp_path, ending, terminated):
    assert read_logs(written(tmp_path, GOOD | ending))[0].terminated is terminated


def test_ids_are_places_where_there_are_none_and_blank_lines_count(tmp_path):
    path = written(tmp_path, GOOD, b"", b" \t\r", GOOD, GOOD | {"id": "mine"})
    assert [d.id for d in read_logs(path)] == ["logs.jsonl:1", "logs.jsonl:4", "mine"]


def test_windows_line_ends_and_a_byte_order_mark(tmp_path):
    path = written(tmp_path, b"\xef\xbb\xbf" + json.dumps(GOOD).encode() + b"\r", GOOD)
    assert len(read_logs(path)) == 2


def test_a_line_is_what_ends_in_a_newline(tmp_path):
    """U+2028 and U+0085 end lines for `str.splitlines`, not for JSONL."""
    text = "one\u2028two\x85three"
    row = {"messages": [{"role": "assistant", "content": text}]}
    path = written(tmp_path, json.dumps(row, ensure_ascii=False).encode(), b"{")
    assert "logs.jsonl:2: " in refusal(path)
    assert read_logs(written(tmp_path, row))[0].messages[0].content == text


def test_another_agent(tmp_path):
    path = written(tmp_path, {"messages": [HELLO | {"reward": 1}, {"role": "assistant", "content": "Yes."}]})
    (dialogue,) = read_logs(path, agent_role="user")
    assert (dialogue.agent_role, dialogue.undiscounted_return()) == ("user", 1.0)


def test_partner_rewards_go_to_the_message_before(tmp_path):
    """-0.05 + 0.5 + 0.25 on the first turn of the agent, the outcome of 1 on its last."""
    messages = [
        REPLY,
        HELLO | {"reward": 0.5},
        HELLO | {"reward": 0.25},
        {"role": "assistant", "content": "!"},
    ]
    path = written(tmp_path, {"messages": messages, "outcome": 1})
    (dialogue,) = read_logs(path, credit_partner_rewards=True)
    assert [m.reward for m in dialogue.messages] == [pytest.approx(0.7), 0, 0, 1]


def test_a_partners_reward_of_zero_says_nothing(tmp_path):
    (dialogue,) = read_logs(written(tmp_path, {"messages": [HELLO | {"reward": 0}, REPLY]}))
    assert dialogue.undiscounted_return() == -0.05


# --- bad rows: each is refused with its file, line, field, what was expected and what was found ----------


def with_reply(**fields):
    return {"messages": [HELLO, REPLY | fields]}


NUMBER = "expected a finite number (at most 1e+30 in size); found"
BAD_ROWS = [
    (
        b'{"messages": [',
        ": expected a JSON object (one conversation a line); found malformed JSON (Expecting",
    ),
    (b'{"a": 1} x', "found malformed JSON (Extra data at column 10): {"),
    (
        b'{"a": ' + b"9" * 5000 + b"}",
        ": expected a JSON object (one conversation a line); found a number with",
    ),
    (b"[" * 100_000, ": expected a JSON object (one conversation a line); found values nested too deeply"),
    ([GOOD], ": expected a JSON object (one conversation a line); found [{"),
    ("hello", ': expected a JSON object (one conversation a line); found "hello"'),
    (None, ": expected a JSON object (one conversation a line); found nothing"),
    (b'{"messages": "caf\xe9"}', ": expected UTF-8 text; found byte 0xe9 at byte 18 of the line"),
    ({}, ": messages: expected a list of messages, each with role and content; found nothing"),
    ({"messages": "hi"}, ': messages: expected a list of messages, each with role and content; found "hi"'),
    ({"messages": []}, ": messages: expected a message of the agent (assistant); found no messages"),
    ({"messages": [HELLO]}, ": messages: expected a message of the agent (assistant); found only user"),
    ({"messages": [HELLO, 3]}, ": messages[1]: expected an object with role and content; found 3"),
    (
        {"messages": [{"content": "Hi."}]},
        ": messages[0].role: expected one of system, user, assistant, tool; found nothing",
    ),
    (
        with_reply(role="bot"),
        ': messages[1].role: expected one of system, user, assistant, tool; found "bot"',
    ),
    (with_reply(role=["user"]), ": messages[1].role: expected one of system, user, assistant, tool; found ["),
    ({"messages": [{"role": "user"}]}, ": messages[0].content: expected a string; found nothing"),
    (with_reply(content=3), ": messages[1].content: expected a string; found 3"),
    (with_reply(content=[{"type": "text"}]), ': messages[1].content: expected a string; found [{"type": "te'),
    (
        with_reply(content=None, tool_calls=[{"name": "test"}]),
        ": messages[1].content: expected a string (write tool calls out as text); found nothing",
    ),
    (with_reply(content="\ud800"), ': messages[1].content: expected a string; found "\\ud800"'),
    (with_reply(reward=math.nan), f": messages[1].reward: {NUMBER} NaN"),
    (with_reply(reward=math.inf), f": messages[1].reward: {NUMBER} Infinity"),
    (with_reply(reward=10**40), f": messages[1].reward: {NUMBER} 1000000"),
    (with_reply(reward="1"), f': messages[1].reward: {NUMBER} "1"'),
    (with_reply(reward=True), f": messages[1].reward: {NUMBER} true"),
    (with_reply(behavior_logp=-math.inf), f": messages[1].behavior_logp: {NUMBER} -Infinity"),
    (with_reply(behavior_logp="x"), f': messages[1].behavior_logp: {NUMBER} "x"'),
    (
        with_reply(behavior_logp=0.5),
        ": messages[1].behavior_logp: expected the log of a probability, 0 or below; found 0.5",
    ),
    (GOOD | {"outcome": math.nan}, f": outcome: {NUMBER} NaN"),
    (GOOD | {"outcome": False}, f": outcome: {NUMBER} false"),
    (GOOD | {"terminated": 1}, ": terminated: expected true or false; found 1"),
    (GOOD | {"truncated": "no"}, ': truncated: expected true or false; found "no"'),
    (
        GOOD | {"terminated": True, "truncated": True},
        ": terminated: expected either terminated or truncated; found both true",
    ),
    (
        GOOD | {"terminated": False, "truncated": False},
        ": terminated: expected either terminated or truncated; found both false",
    ),
    (GOOD | {"id": 1.5}, ": id: expected text or a whole number; found 1.5"),
    (GOOD | {"id": True}, ": id: expected text or a whole number; found true"),
    (GOOD | {"id": ""}, ': id: expected text or a whole number; found ""'),
    (GOOD | {"id": "\udfff"}, ': id: expected text or a whole number; found "\\udfff"'),
    (
        {"messages": [HELLO | {"reward": 1}, REPLY]},
        ": messages[0].reward: expected rewards on messages of the agent (assistant) alone "
        "(--credit-partner-rewards gives them to its message before); found 1 on a message of the user",
    ),
]


@pytest.mark.parametrize(("row", "words"), BAD_ROWS, ids=[w[:70] for _, w in BAD_ROWS])
def test_bad_rows(tmp_path, row, words):
    path = written(tmp_path, GOOD, b"", row, GOOD)
    message = refusal(path)
    assert message.startswith(f"{path}:3: ")
    assert words in message


def test_what_was_found_is_short(tmp_path):
    message = refusal(written(tmp_path, with_reply(reward="x" * 10_000)))
    assert message.endswith(f'{NUMBER} "{"x" * 58}…')


def test_a_partners_reward_with_no_agent_before_it(tmp_path):
    path = written(tmp_path, {"messages": [HELLO | {"reward": 1}, REPLY]})
    assert refusal(path, credit_partner_rewards=True) == (
        f"{path}:1: messages[0].reward: expected a message of the agent (assistant) before it; "
        "found 1 on a message of the user"
    )


def test_duplicate_ids_name_both_lines(tmp_path):
    path = written(tmp_path, GOOD | {"id": "7"}, GOOD, GOOD | {"id": 7})
    assert refusal(path) == f'{path}:3: id: expected an id of its own ({path}:1 has it too); found "7"'


def test_unknown_agent_role(tmp_path):
    message = refusal(written(tmp_path, GOOD), agent_role="bot")
    assert message == 'agent_role: expected one of system, user, assistant, tool; found "bot"'


# --- where logs lie ---------------------------------------------------------------------------------------


def test_bad_places(tmp_path):
    empty = written(tmp_path, b"", name="empty.jsonl")
    assert refusal(empty) == f"{empty}: expected at least one conversation; found nothing (it is empty)"
    missing = tmp_path / "missing.jsonl"
    assert refusal(missing) == f"{missing}: expected a file or folder with logs; found no such file"
    csv = written(tmp_path, b"a,b", name="logs.csv")
    assert refusal(csv) == (
        f'{csv}: expected a name that ends in .jsonl, .json, .jsonl.gz, .json.gz, .parquet; found "logs.csv"'
    )
    folder = tmp_path / "folder"
    folder.mkdir()
    written(folder, GOOD, name=".hidden.jsonl")
    assert refusal(folder) == f"{folder}: expected .jsonl, .jsonl.gz, .parquet files in it; found none"
    long = tmp_path / ("x" * 5000)
    assert refusal(long).startswith(f"{long}: expected logs that can be read; found [Errno 36] File name too")


def test_gzip(tmp_path):
    plain = written(tmp_path, GOOD | {"id": "a"}, GOOD | {"id": "b"})
    zipped = tmp_path / "logs.json.gz"
    zipped.write_bytes(gzip.compress(plain.read_bytes()))
    assert read_logs(zipped) == read_logs(plain)
    zipped.write_bytes(zipped.read_bytes()[:-8])  # the checksum at the end
    assert refusal(zipped).startswith(f"{zipped}:3: expected a whole gzip file; found Compressed file ended")
    zipped.write_bytes(b"not zipped")
    assert refusal(zipped).startswith(f"{zipped}:1: expected a whole gzip file; found Not a gzipped file")


def test_a_folder_is_its_files_in_the_order_of_their_names(tmp_path):
    written(tmp_path, GOOD, GOOD, name="b.jsonl")
    written(tmp_path, GOOD, name="a.jsonl")
    written(tmp_path, b"{}", name="about.json")
    assert [d.id for d in read_logs(tmp_path)] == ["a.jsonl:1", "b.jsonl:1", "b.jsonl:2"]
    written(tmp_path, b"{}", name="c.jsonl")
    assert refusal(tmp_path).startswith(f"{tmp_path / 'c.jsonl'}:1: messages: expected")


# Every optional field on some rows alone, so that Arrow fills the rest with nulls.
MIXED = [
    {"id": "a", "messages": [HELLO, REPLY, HELLO], "terminated": True, "topic": {"part": 1}},
    {"id": "b", "messages": [{"role": "assistant", "content": "né 🙂"}], "outcome": 1.5, "turns": 3},
    {"id": "c", "messages": [HELLO, REPLY], "truncated": True, "topic": {"model": "x", "tags": ["u", "v"]}},
] + [{"id": f"many-{i}", "messages": [HELLO, REPLY]} for i in range(1500)]  # more than one batch of Arrow's


@pytest.fixture
def pa():
    return pytest.importorskip("pyarrow", reason="needs pyarrow: pip install 'turnwise[data]'")


@pytest.fixture
def datasets(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return pytest.importorskip("datasets", reason="needs datasets: pip install 'turnwise[data]'")


def parquet(pa, path, rows):
    import pyarrow.parquet

    table = rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(rows)
    pyarrow.parquet.write_table(table, path)
    return path


def test_parquet_equals_jsonl(tmp_path, pa):
    path = parquet(pa, tmp_path / "logs.parquet", pa.Table.from_pylist(MIXED, schema=schema(pa)))
    assert read_logs(path) == read_logs(written(tmp_path, *MIXED))


def schema(pa):
    """Written out, because Arrow infers the columns of a table from its first row."""
    fields = {
        "role": pa.string(),
        "content": pa.string(),
        "reward": pa.float64(),
        "behavior_logp": pa.float64(),
    }
    topic = {"part": pa.int64(), "model": pa.string(), "tags": pa.list_(pa.string())}
    columns = {"id": pa.string(), "messages": pa.list_(pa.struct(fields)), "outcome": pa.float64()}
    columns |= {"terminated": pa.bool_(), "truncated": pa.bool_(), "turns": pa.int64()}
    return pa.schema(columns | {"topic": pa.struct(topic)})


def test_bad_rows_of_parquet(tmp_path, pa):
    path = parquet(pa, tmp_path / "logs.parquet", [GOOD, GOOD, with_reply(reward=math.nan)])
    assert refusal(path) == f"{path}:3: messages[1].reward: {NUMBER} NaN"
    parquet(pa, path, [GOOD] * 1500 + [with_reply(role="bot")])
    assert refusal(path).startswith(f"{path}:1501: messages[1].role: ")
    parquet(pa, path, [GOOD | {"outcome": o} for o in (True, None)])
    assert refusal(path) == f"{path}:1: outcome: {NUMBER} true"
    parquet(pa, path, pa.table({"messages": pa.array([], pa.string())}))
    assert refusal(path) == f"{path}: expected at least one conversation; found nothing (it is empty)"
    broken = pa.array([b"fine", b"caf\xe9"], pa.binary()).view(pa.string())
    parquet(pa, path, pa.table({"messages": [[HELLO, REPLY]] * 2, "note": broken}))
    assert refusal(path).startswith(
        f"{path}:2: expected UTF-8 text; found 'utf-8' codec can't decode byte 0xe9"
    )
    path.write_bytes(b"PAR1 and no more")
    assert refusal(path).startswith(f"{path}: expected a Parquet file; found Parquet")


def test_datasets_folders(tmp_path, datasets, pa):
    expected = read_logs(written(tmp_path, *MIXED))
    data = datasets.Dataset(pa.Table.from_pylist(MIXED, schema=schema(pa)))
    data.save_to_disk(tmp_path / "one")
    assert read_logs(tmp_path / "one") == expected
    both = datasets.DatasetDict(train=data, test=data.select([2, 0]))
    both.save_to_disk(tmp_path / "both")
    assert read_logs(tmp_path / "both") == expected
    assert read_logs(f"{tmp_path / 'both'}:test") == [expected[2], expected[0]]
    assert refusal(f"{tmp_path / 'both'}:dev") == (
        f"{tmp_path / 'both'}: expected a folder saved by datasets; found no split dev among train, test"
    )
    assert "found no splits, so none called dev" in refusal(f"{tmp_path / 'one'}:dev")
    datasets.Dataset.from_list([GOOD, with_reply(role="bot")]).save_to_disk(tmp_path / "bad")
    assert f"{tmp_path / 'bad'}:2: messages[1].role: expected one of system" in refusal(tmp_path / "bad")


def test_datasets_names(tmp_path, datasets, monkeypatch):
    """The hub is the one thing that a test cannot have: a function that notes what is asked stands for it."""
    asked = []

    def load_dataset(name, split):
        asked.append((name, split))
        if split == "dev":
            raise ValueError('Unknown split\n"dev".')
        return datasets.Dataset.from_list([GOOD])

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert [d.id for d in read_logs("some/desk")] == ["desk:1"]
    assert len(read_logs("desk:test")) == 1
    assert refusal("some/desk:dev") == (
        'some/desk: expected a file, a folder or the name of a dataset; found Unknown split "dev".'
    )
    assert asked == [("some/desk", "train"), ("desk", "test"), ("some/desk", "dev")]
    for missing in ("desk.jsonl", "./desk", "/nowhere/desk", "a/b/c", "desk.jsonl:test"):
        assert refusal(missing) == f"{missing}: expected a file or folder with logs; found no such file"


def test_what_to_install(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for module in ("pyarrow", "datasets"):
        monkeypatch.setitem(sys.modules, module, None)
    install = "found it not installed: pip install 'turnwise[data]'"
    path = written(tmp_path, b"PAR1", name="logs.parquet")
    assert refusal(path) == f"{path}: expected the package pyarrow, which reads Parquet; {install}"
    assert refusal("some/desk") == (
        "some/desk: no such file or folder, so perhaps the name of a dataset: "
        f"expected the package datasets, which reads it; {install}"
    )


# --- writing ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["out.jsonl", "out.jsonl.gz"])
def test_written_rows_are_read_again(tmp_path, name):
    rows = [GOOD | {"id": "a", "note": "né 🙂"}, GOOD | {"id": "b", "score": np.float32(0.5)}]
    assert write_jsonl(tmp_path / name, rows) == 2
    one, two = read_logs(tmp_path / name)
    assert (one.metadata, two.metadata) == ({"note": "né 🙂"}, {"score": 0.5})
    data = (tmp_path / name).read_bytes()
    if name.endswith(".gz"):
        assert data[3:8] == bytes(5), "no name and no time in the header: the same rows are the same bytes"


def test_files_can_be_read_by_others(tmp_path):
    write_jsonl(tmp_path / "out.jsonl", [GOOD])
    (tmp_path / "plain").touch()
    assert (tmp_path / "out.jsonl").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_nothing_is_half_written(tmp_path):
    path = written(tmp_path, b"before", name="out.jsonl")

    def rows(last):
        yield GOOD
        if isinstance(last, BaseException):
            raise last
        yield last

    with pytest.raises(InputError, match=r"out\.jsonl: expected a new file; found one that exists"):
        write_jsonl(path, [GOOD])
    for bad, words in [
        ({"x": {1}}, "a value of type set"),
        ({"x": math.nan}, "Out of range float values"),
        ({"x": "\ud800"}, "'utf-8' codec can't encode"),
    ]:
        with pytest.raises(
            InputError, match=rf"out\.jsonl:2: expected values that JSON holds; found {words}"
        ):
            write_jsonl(path, rows(bad), overwrite=True)
    with pytest.raises(KeyboardInterrupt):
        write_jsonl(path, rows(KeyboardInterrupt()), overwrite=True)
    assert path.read_bytes() == b"before\n"
    with pytest.raises(InputError, match=r"expected an existing folder to write in; found no folder"):
        write_jsonl(tmp_path / "no" / "out.jsonl", [GOOD])
    with pytest.raises(InputError, match=r"expected the name of a file to write; found a folder"):
        write_jsonl(tmp_path, [GOOD], overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["out.jsonl"]


def test_dates_are_written_as_text_and_metadata_may_not_pass_for_fields(tmp_path):
    write_jsonl(tmp_path / "out.jsonl", [GOOD | {"day": datetime.date(2024, 2, 29)}])
    assert read_logs(tmp_path / "out.jsonl")[0].metadata == {"day": "2024-02-29"}
    dialogue = Dialogue((Message("assistant", "Yes."),), metadata=MappingProxyType({"outcome": 1}))
    with pytest.raises(ValueError, match=r"metadata keys \['outcome'\] are fields"):
        to_row(dialogue)


# --- anything at all ----------------------------------------------------------------------------------------

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
rewards = st.floats(-1e30, 1e30)
logps = st.none() | st.floats(-1e30, 0)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | texts
values = st.recursive(scalars, lambda v: st.lists(v, max_size=3) | st.dictionaries(texts, v, max_size=3))
finite = st.recursive(
    st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda v: st.lists(v, max_size=3) | st.dictionaries(texts, v, max_size=3),
)


@st.composite
def dialogues(draw):
    agent = draw(st.sampled_from(ROLES))
    roles = [*draw(st.lists(st.sampled_from(ROLES), max_size=5)), agent]
    messages = [
        Message(role, draw(texts), draw(rewards) if role == agent else 0.0, draw(logps))
        for role in draw(st.permutations(roles))
    ]
    keys = st.text(string.ascii_letters, min_size=1, max_size=6).filter(lambda k: k not in FIELDS)
    metadata = draw(st.dictionaries(keys, finite, max_size=3))
    return Dialogue(tuple(messages), draw(st.booleans()), draw(texts.filter(bool)), agent, metadata)


@fuzz
@given(dialogues())
def test_round_trip(tmp_path, dialogue):
    write_jsonl(tmp_path / "out.jsonl", [to_row(dialogue)], overwrite=True)
    assert read_logs(tmp_path / "out.jsonl", agent_role=dialogue.agent_role) == [dialogue]


def read_or_refuse(path, **options):
    """Rewards that pass are numbers that can be added up; nothing but InputError comes out."""
    try:
        for dialogue in read_logs(path, **options):
            assert math.isfinite(dialogue.undiscounted_return())
    except InputError as error:
        assert str(error).isprintable()
        assert str(path) in str(error)


@st.composite
def damaged(draw):
    """A good row with one of its parts replaced by anything."""
    row = json.loads(json.dumps(GOOD | {"outcome": 1, "terminated": True, "id": "x", "note": {"a": 1}}))
    place = draw(st.sampled_from([row, *row["messages"]]))
    place[draw(st.sampled_from([*place, "truncated", "reward", "behavior_logp"]))] = draw(values)
    return row


@fuzz
@given(st.lists(values | damaged(), min_size=1, max_size=3), st.booleans())
def test_any_json(tmp_path, rows, credit):
    read_or_refuse(written(tmp_path, *rows), credit_partner_rewards=credit)


@fuzz
@given(st.sampled_from(["x.jsonl", "x.json.gz", "x.parquet"]), st.binary(max_size=80), st.booleans())
def test_any_bytes(tmp_path, pa, name, data, zipped):
    path = tmp_path / name
    path.write_bytes(gzip.compress(data) if zipped and name.endswith(".gz") else data)
    read_or_refuse(path)


@fuzz
@given(st.integers(0, 10_000), st.binary(min_size=1, max_size=4))
def test_any_bytes_in_the_middle(tmp_path, at, data):
    good = written(tmp_path, GOOD, GOOD | {"id": "b"}, name="good.jsonl").read_bytes()
    path = tmp_path / "x.jsonl"
    path.write_bytes(good[: at % len(good)] + data + good[at % len(good) + len(data) :])
    read_or_refuse(path)


@pytest.mark.parametrize("depth", [100, 600, 2000, 100_000])
def test_any_depth(tmp_path, depth):
    """Where Python gives up depends on its version: in the parser of JSON, in ours, or not at all."""
    line = json.dumps(GOOD)[:-1].encode() + b', "note": ' + b"[" * depth + b"]" * depth + b"}"
    path = written(tmp_path, line)
    try:
        (dialogue,) = read_logs(path)
        assert len(dialogue.messages) == 2
    except InputError as error:
        assert str(error).startswith(f"{path}:1: expected a ")
        assert str(error).endswith("; found values nested too deeply")
        assert depth > 100
