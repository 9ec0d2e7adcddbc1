"""Reading and writing conversations: what comes out, and which words each kind of bad row is refused with."""

import datetime
import json
import math
import string
from types import MappingProxyType

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from turnwise.data.dialogue import ROLES, Dialogue, spoken
from turnwise.data.files.logs import FIELDS, read_logs, to_row
from turnwise.data.files.writing import write_jsonl
from turnwise.envs.dialogue import Message, ToolCall
from turnwise.run.errors import InputError, SettingError

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
    assert str(caught.value).replace("\n  ", "").isprintable(), "nothing that a terminal would obey"
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
        rated_by="outcome",
    )


def test_what_a_log_says_of_tools_and_names_is_kept(tmp_path):
    """Calls nested as chat interfaces write them, flat, or the one `function_call` of older logs."""
    spaced = '{"part":  "fuse"}'
    nested = {"id": "c1", "type": "function", "function": {"name": "test", "arguments": spaced}}
    flat = {"name": "test", "arguments": {"part": "fuse", "volts": None}}
    row = {
        "messages": [
            HELLO | {"name": "Ann"},
            {"role": "assistant", "content": None, "tool_calls": [nested, flat], "reward": 0.5},
            {"role": "tool", "content": "blown", "name": "test", "tool_call_id": "c1"},
            {"role": "assistant", "content": "One more.", "function_call": {"name": "buy"}, "name": ""},
        ]
    }
    logs = read_logs(written(tmp_path, row))
    assert logs[0].messages == (
        Message("user", "It does not start.", name="Ann"),
        Message(
            "assistant",
            "",
            0.5,
            tool_calls=(ToolCall("c1", "test", spaced), ToolCall(None, "test", '{"part": "fuse"}')),
        ),
        Message("tool", "blown", name="test", tool_call_id="c1"),
        Message("assistant", "One more.", tool_calls=(ToolCall(None, "buy", "{}"),)),
    )
    assert [spoken(m) for m in logs[0].messages] == [
        "Ann: It does not start.",
        'call test({"part":  "fuse"})\ncall test({"part": "fuse"})',
        "test: blown",
        "One more.\ncall buy({})",
    ]
    again = to_row(logs[0])
    assert again["messages"][1]["tool_calls"][0] == nested
    assert read_logs([again]) == list(logs) and read_logs([{**again, "messages": logs[0].messages}]) == list(
        logs
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


ROLE = "expected one of system, user, assistant, tool (map_role says what another name means); found"
NUMBER = "expected a finite number (at most 1e+30 in size); found"
BAD_ROWS = [
    (
        b'{"messages": [',
        ": expected a JSON object a line; found malformed JSON (Expecting",
    ),
    (b'{"a": 1} x', "found malformed JSON (Extra data at column 10): {"),
    (
        b'{"a": ' + b"9" * 5000 + b"}",
        ": expected a JSON object a line; found a number with",
    ),
    (b"[" * 100_000, ": expected a JSON object a line; found values nested too deeply"),
    ([GOOD], ": expected a JSON object a line; found [{"),
    ("hello", ': expected a JSON object a line; found "hello"'),
    (None, ": expected a JSON object a line; found nothing"),
    (b'{"messages": "caf\xe9"}', ": expected UTF-8 text; found byte 0xe9 at byte 18 of the line"),
    ({}, ": messages: expected a list of messages, each with role and content; found nothing"),
    ({"messages": "hi"}, ': messages: expected a list of messages, each with role and content; found "hi"'),
    ({"messages": []}, ": messages: expected a message of the agent (assistant); found no messages"),
    ({"messages": [HELLO]}, ": messages: expected a message of the agent (assistant); found only user"),
    ({"messages": [HELLO, 3]}, ": messages[1]: expected an object with role and content; found 3"),
    (
        {"messages": [{"content": "Hi."}]},
        f": messages[0].role: {ROLE} nothing",
    ),
    (
        with_reply(role="agent"),
        f': messages[1].role: {ROLE} "agent"',
    ),
    (
        with_reply(role=["user"]),
        f": messages[1].role: {ROLE} [",
    ),
    ({"messages": [{"role": "user"}]}, ": messages[0].content: expected a string; found nothing"),
    (with_reply(content=3), ": messages[1].content: expected a string; found 3"),
    (
        with_reply(content=[{"type": "text"}]),
        ': messages[1].content[0]: expected a part with text; found {"type',
    ),
    (
        with_reply(content=[{"type": "text", "text": "See"}, {"type": "image_url", "image_url": "x"}]),
        ': messages[1].content[1].type: expected text (pictures, sound and files are not read); found "im',
    ),
    (
        {"messages": [HELLO, REPLY, REPLY | {"role": "bot"}]},
        ": messages: expected one name for the assistant (map_role says who is who); found assistant and bot",
    ),
    (
        with_reply(content=None, tool_calls=[]),
        ": messages[1].content: expected a string; found nothing",
    ),
    (
        with_reply(tool_calls={"name": "test"}),
        ": messages[1].tool_calls: expected a list of calls, each with the name and the arguments of a "
        'function; found {"name": "test"}',
    ),
    (
        with_reply(tool_calls=[{"id": "1", "function": {"arguments": "{}"}}]),
        ": messages[1].tool_calls[0].name: expected the name of a function; found nothing",
    ),
    (
        with_reply(tool_calls=["test"]),
        ": messages[1].tool_calls[0]: expected a call with the name and the arguments of a function; found",
    ),
    (
        with_reply(name={"first": "Ann"}),
        ': messages[1].name: expected text or a whole number; found {"first": "Ann"}',
    ),
    (with_reply(content="\ud800"), ': messages[1].content: expected a string; found "\\ud800"'),
    (with_reply(reward=math.nan), f": messages[1].reward: {NUMBER} NaN"),
    (with_reply(reward=math.inf), f": messages[1].reward: {NUMBER} Infinity"),
    (with_reply(reward=10**40), f": messages[1].reward: {NUMBER} 1000000"),
    (with_reply(reward="1,5"), f': messages[1].reward: {NUMBER} "1,5"'),
    (with_reply(reward="nan"), f': messages[1].reward: {NUMBER} "nan"'),
    (with_reply(reward="9" * 400), f': messages[1].reward: {NUMBER} "999'),
    (with_reply(reward=[1]), f": messages[1].reward: {NUMBER} [1]"),
    (with_reply(behavior_logp=-math.inf), f": messages[1].behavior_logp: {NUMBER} -Infinity"),
    (with_reply(behavior_logp=False), f": messages[1].behavior_logp: {NUMBER} false"),
    (with_reply(act_logp="x"), f': messages[1].act_logp: {NUMBER} "x"'),
    (
        with_reply(act_logp=1e-3),
        ": messages[1].act_logp: expected the log of a probability, 0 or below; found 0.001",
    ),
    (with_reply(behavior_logp="x"), f': messages[1].behavior_logp: {NUMBER} "x"'),
    (
        with_reply(behavior_logp=0.5),
        ": messages[1].behavior_logp: expected the log of a probability, 0 or below; found 0.5",
    ),
    (GOOD | {"outcome": math.nan}, f": outcome: {NUMBER} NaN"),
    (GOOD | {"outcome": "good"}, f': outcome: {NUMBER} "good"'),
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
        "(credit_partner_rewards gives them to its message before); found 1 on a message of the user",
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
    assert refusal(path) == (
        f'{path}:3: id: expected an id of its own ({path}:1 has it too); found "7" '
        "(1 of 3 rows; skip_bad leaves it out)"
    )


def test_unknown_agent_role(tmp_path):
    message = refusal(written(tmp_path, GOOD), agent_role="bot")
    assert message == "agent_role is 'bot'; expected one of system, user, assistant, tool"


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
named = st.none() | texts.filter(bool)
calls = st.none() | st.lists(
    st.builds(ToolCall, named, texts.filter(bool), texts), min_size=1, max_size=2
).map(tuple)
extras = st.tuples(named, calls, named)
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
        Message(role, draw(texts), draw(rewards) if role == agent else 0.0, draw(logps), *draw(extras))
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
        assert str(error).replace("\n  ", "").isprintable()
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


def test_a_truncated_conversation_counts_as_ended_where_its_limit_is_a_rule() -> None:
    """In rows and in values alike; what is left to bootstrap from is the one that says nothing of either."""
    turn = [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Hello."}]
    rows = [{"messages": turn, "truncated": True}, {"messages": turn, "terminated": True}]
    cut = read_logs(rows, quiet=True)
    assert [d.terminated for d in cut] == [False, True] and cut.reading.notes() == []
    for source in (rows, list(cut)):
        ended = read_logs(source, truncation="end", quiet=True)
        assert [d.terminated for d in ended] == [True, True]
        assert ended.reading.facts() == {"cut_as_ended": 1}
        assert ended.reading.notes() == ["1 truncated conversation counted as ended."]
    with pytest.raises(SettingError, match="truncation is 'stop'; expected cut or end"):
        read_logs(rows, truncation="stop", quiet=True)
