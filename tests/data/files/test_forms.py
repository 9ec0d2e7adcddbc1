"""Logs in the forms that people have them in: each gives the same conversations as ours."""

import gzip
import json

import pytest

from turnwise.data.dialogue import Dialogue
from turnwise.data.feedback import Like, Pair
from turnwise.data.files.feedback import holds_feedback, read_feedback
from turnwise.data.files.logs import read_logs
from turnwise.data.files.prompts import read_prompts
from turnwise.envs.dialogue import Message, ToolCall
from turnwise.run.errors import InputError, SettingError

DARK, FUSE, THANKS = "It is dark.", "Test the fuse.", "Thanks!"
TALK = (Message("user", DARK), Message("assistant", FUSE), Message("user", THANKS))
OURS = {
    "id": "a",
    "messages": [
        {"role": "user", "content": DARK},
        {"role": "assistant", "content": FUSE},
        {"role": "user", "content": THANKS},
    ],
}


def messages(row, **options):
    (dialogue,) = read_logs([row], **options)
    return dialogue.messages


def refusal(read, *args, **options):
    with pytest.raises(InputError) as caught:
        read(*args, **options)
    return str(caught.value)


def renamed(**names):
    return [{**m, "role": names.get(m["role"], m["role"])} for m in OURS["messages"]]


# --- messages -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("agent", ["assistant", "ai", "gpt", "bot", "model", "AI", " Bot "])
def test_roles_under_the_names_of_others(agent):
    assert messages({"messages": renamed(user="human", assistant=agent)}) == TALK
    first = [
        {"role": "developer", "content": "Be brief."},
        {"role": "function", "content": "on", "name": "lamp"},
    ]
    assert messages({"messages": [*first, *renamed()]}) == (
        Message("system", "Be brief."),
        Message("tool", "on", name="lamp"),
        *TALK,
    )


def test_roles_that_could_be_anybodys_are_mapped():
    rows = [{"messages": renamed(user="caller", assistant="rep")}]
    assert 'found "caller"' in refusal(read_logs, rows)
    for mapping in ({"caller": "user", "rep": "assistant"}, ["caller=user", "rep=assistant"]):
        assert read_logs(rows, map_role=mapping)[0].messages == TALK
    swapped = read_logs([OURS], map_role={"user": "assistant", "assistant": "user"})[0]
    assert [m.role for m in swapped.messages] == ["assistant", "user", "assistant"]
    with pytest.raises(
        SettingError, match=r"^map_role is 'rep=agent'; expected a name and one of system, user"
    ):
        read_logs(rows, map_role=["rep=agent"])


def test_two_speakers_do_not_become_one_in_silence():
    """A bot that hands over to a person: nobody but the reader knows whether both are the agent."""
    both = [*renamed(), {"role": "bot", "content": "Call 911."}]
    assert refusal(read_logs, [{"messages": both}]) == (
        "row 0: messages: expected one name for the assistant (map_role says who is who); "
        "found assistant and bot"
    )
    assert [m.role for m in messages({"messages": both}, map_role=["bot=tool"])][-1] == "tool"
    assert len(read_logs([{"messages": both}], map_role=["bot=assistant"])[0].turns) == 2


def test_content_in_parts():
    parts = [{"type": "text", "text": "It is"}, {"type": "input_text", "text": "dark."}, "Help."]
    said = messages({"messages": [{"role": "user", "content": parts}, *OURS["messages"][1:]]})
    assert said == (Message("user", "It is\ndark.\nHelp."), *TALK[1:])
    of_google = [{"role": "user", "parts": [{"text": DARK}]}, {"role": "model", "parts": [{"text": FUSE}]}]
    assert messages({"messages": of_google}) == TALK[:2]
    picture = [{"type": "image_url", "image_url": {"url": "x"}}]
    said = refusal(read_logs, [{"messages": [{"role": "user", "content": picture}, *OURS["messages"][1:]]}])
    assert said == (
        "row 0: messages[0].content[0].type: expected text (pictures, sound and files are not read); "
        'found "image_url"'
    )


def test_sharegpt():
    said = [
        {"from": "human", "value": DARK},
        {"from": "function_call", "value": '{"name": "test", "arguments": {"part": "fuse"}}'},
        {"from": "observation", "value": "blown"},
        {"from": "gpt", "value": FUSE},
    ]
    (dialogue,) = read_logs([{"conversations": said, "system": "Be brief.", "source": "x"}])
    assert dialogue.messages == (
        Message("system", "Be brief."),
        TALK[0],
        Message("assistant", "", tool_calls=(ToolCall(None, "test", '{"part": "fuse"}'),)),
        Message("tool", "blown"),
        TALK[1],
    )
    assert dialogue.metadata == {"source": "x"}
    assert refusal(read_logs, [{"conversations": said[:1]}]) == (
        "row 0: conversations: expected a message of the agent (assistant); found only user"
    )


@pytest.mark.parametrize("spelled", [json.dumps, repr])
def test_messages_as_text(spelled):
    """As Parquet files and tables hold them that know no lists; pandas writes what Python prints."""
    assert messages({"messages": spelled(OURS["messages"])}) == TALK
    assert 'expected a list of messages, each with role and content; found "[{' in refusal(
        read_logs, [{"messages": "[{broken"}]
    )


@pytest.mark.parametrize(
    ("outcome", "worth"), [("0.5", 0.5), (" -2e1 ", -20), (True, 1), (False, 0), ("true", 1), ("FALSE", 0)]
)
def test_outcomes_as_text_and_as_flags(outcome, worth):
    (dialogue,) = read_logs([OURS | {"outcome": outcome}])
    assert dialogue.messages[1].reward == worth and dialogue.rated_by == "outcome"


def test_an_outcome_of_another_name(tmp_path):
    rows = [OURS | {"score": "3", "outcome": "sold"}, {**OURS, "id": "b", "score": None}]
    first, second = logs = read_logs(rows, outcome_column="score")
    assert (first.undiscounted_return(), first.rated_by, second.rated_by) == (3, "outcome", "nothing")
    assert logs[0].metadata == {"logged_outcome": "sold"}
    with pytest.raises(
        SettingError, match="outcome_column is 'scores'; expected a column of rows in memory; no"
    ):
        read_logs([OURS], outcome_column="scores")


# --- files --------------------------------------------------------------------------------------------


def test_a_json_file_is_a_list_or_one_conversation_or_lines(tmp_path):
    two = [OURS, OURS | {"id": "b"}]
    path = tmp_path / "logs.json"
    for text in (json.dumps(two), json.dumps(two, indent=2), "\n\ufeff".join(["", json.dumps(two)])[1:]):
        path.write_text(text, encoding="utf-8")
        assert read_logs(path) == read_logs(two)
    path.write_text(json.dumps([{"messages": OURS["messages"]}]))
    assert [d.id for d in read_logs(path)] == ["logs.json[0]"]
    path.write_text(json.dumps(OURS, indent=2))
    assert read_logs(path) == read_logs([OURS])
    path.write_text("\n".join(map(json.dumps, two)))
    assert read_logs(path) == read_logs(two)
    (tmp_path / "logs.ndjson.gz").write_bytes(gzip.compress(path.read_bytes()))
    assert read_logs(tmp_path / "logs.ndjson.gz") == read_logs(two)


def test_a_list_that_breaks_off_is_refused_whole_and_its_bad_rows_one_by_one(tmp_path):
    path = tmp_path / "logs.json"
    path.write_text(json.dumps([OURS, OURS], indent=1)[:-30])
    assert refusal(read_logs, path, skip_bad=True).startswith(
        f"{path}:32: expected JSON objects, or one list of them; found malformed JSON ("
    )
    path.write_text(json.dumps([OURS, 3, {"messages": []}]))
    assert [d.id for d in read_logs(path, skip_bad=True)] == ["a"]
    assert f"{path}[1]: expected a JSON object; found 3" in refusal(read_logs, path)
    path.write_text("[" + "[" * 100_000)
    assert "found values nested too deeply" in refusal(read_logs, path)


TABLE = """session_id,speaker,text,outcome,shop,time
7,customer,It is dark.,,Bern,10:01
8,customer,"Hello,
there.",,Basel,10:02
7,agent,Test the fuse.,1,Bern,10:03
7,customer,Thanks!,,,10:04
8,agent,,0,Basel,10:05
"""


def test_a_table_with_a_row_a_message(tmp_path):
    """Rows of a conversation need not be neighbours; what differs within one belongs to its messages."""
    path = tmp_path / "logs.csv"
    path.write_text("\ufeff" + TABLE.replace("\n", "\r\n"), encoding="utf-8")
    roles = {"customer": "user", "agent": "assistant"}
    logs = read_logs(path, map_role=roles)
    assert list(logs) == [
        Dialogue(
            (TALK[0], Message("assistant", FUSE, 1.0), TALK[2]),
            id="7",
            metadata={"shop": "Bern"},
            rated_by="outcome",
        ),
        Dialogue(
            (Message("user", "Hello,\r\nthere."), Message("assistant", "", 0.0)),
            id="8",
            metadata={"shop": "Basel"},
            rated_by="outcome",
        ),
    ]
    assert logs.reading.notes() == ["Rows are messages: those of equal 'session_id' became one conversation."]
    (tmp_path / "semicolons.csv").write_text(TABLE.replace(",", ";").replace("Hello;", "Hello,"))
    assert [d.id for d in read_logs(tmp_path / "semicolons.csv", map_role=roles)] == ["7", "8"]
    path.write_text(TABLE.replace("Thanks!,,", "Thanks!,0.5,"))
    assert refusal(read_logs, path, map_role=roles) == (
        f"{path}:2: outcome: expected one value in all rows of '7'; found '1' and '0.5' "
        "(1 of 2 rows; skip_bad leaves it out)"
    )


def test_a_table_with_a_row_a_conversation(tmp_path):
    path = tmp_path / "logs.tsv"
    cells = json.dumps(OURS["messages"]).replace('"', '""')
    path.write_text(f'id\tmessages\toutcome\tterminated\na\t"{cells}"\t0.5\tTrue\nb\t"{cells}"\t\tfalse\n')
    first, second = read_logs(path)
    assert (first.id, first.undiscounted_return(), first.terminated) == ("a", 0.5, True)
    assert (second.messages, second.rated_by, second.terminated) == (TALK, "nothing", False)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("id,messages\na,[],3\nb,[]\n", ":2: expected 2 columns, as in the first line; found 3"),
        ("id,id\na,b\n", ':1: expected a first line of different names of columns; found "id twice"'),
        ('id,messages\na,"[]\n', ":2: expected a table of text; found unexpected end of data"),
        (
            "id,role,content\n1,user,x\n2,assistant,y\n",
            "a message belongs to (conversation_id); found an id of its",
        ),
        ("role,content\nuser,x\n", "or, where a row is a message, a column conversation_id; found nothing"),
        ("id,messages\n", ": expected at least one conversation; found nothing (it is empty)"),
        ("", ": expected at least one conversation; found nothing (it is empty)"),
        ("caf\xe9,messages\n", ":1: expected UTF-8 text; found byte 0xe9 at byte 4 of the line"),
    ],
)
def test_tables_that_cannot_be_read(tmp_path, text, words):
    path = tmp_path / "logs.csv"
    path.write_bytes(text.encode("latin-1"))
    assert words in refusal(read_logs, path)


def test_messages_as_rows_of_pandas():
    pandas = pytest.importorskip("pandas", reason="comes with datasets: pip install 'turnwise[data]'")
    table = pandas.DataFrame(
        [
            {"chat_id": 1, "role": "user", "content": DARK, "outcome": None},
            {"chat_id": 1, "role": "assistant", "content": FUSE, "outcome": 0.5},
            {"chat_id": 2, "role": "assistant", "content": FUSE, "outcome": None},
        ]
    )
    one, two = read_logs(table)
    assert (one.messages, one.id) == ((TALK[0], Message("assistant", FUSE, 0.5)), "1")
    assert (two.rated_by, two.id) == ("nothing", "2")


def test_a_folder_says_which_files_it_did_not_read(tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps(OURS))
    (tmp_path / "b.ndjson").write_text(json.dumps(OURS | {"id": "b"}))
    for name in ("about.json", "notes.txt", ".hidden"):
        (tmp_path / name).write_text("{}")
    (tmp_path / "older").mkdir()
    logs = read_logs(tmp_path)
    assert [d.id for d in logs] == ["a", "b"]
    assert logs.reading.passed_over == ("about.json", "notes.txt", "older/")
    assert logs.reading.notes() == ["3 files of the folder not read: about.json, notes.txt, older/."]
    for name in ("a.jsonl", "b.ndjson", "about.json"):
        (tmp_path / name).unlink()
    for name in ("x.json", "y.json"):  # one file a conversation
        (tmp_path / name).write_text(json.dumps(OURS | {"id": name}, indent=2))
    assert [d.id for d in read_logs(tmp_path)] == ["x.json", "y.json"]


# --- all faults at once -------------------------------------------------------------------------------


def test_all_faults_are_told_together(tmp_path):
    """Of 30 rows 12 are bad: two lines that are no JSON, ten without messages; ten are told."""
    path = tmp_path / "logs.jsonl"
    good = [json.dumps({"messages": OURS["messages"]})] * 18
    path.write_text("\n".join(["{", *good[:9], "]", *good[9:], *["{}"] * 10]))
    said = refusal(read_logs, path).split("\n  ")
    assert said[0] == (
        f"{path}: expected 30 rows that are each a conversation; found 12 that are not "
        "(skip_bad leaves them out); the first 10:"
    )
    assert [line.split(": ")[0] for line in said[1:]] == [f"{path}:{n}" for n in (1, 11, *range(21, 29))]


def test_bad_rows_are_left_out_and_counted(tmp_path):
    path = tmp_path / "logs.jsonl"
    path.write_text("\n".join([json.dumps(OURS), "{", json.dumps(OURS), json.dumps(OURS | {"id": "b"})]))
    logs = read_logs(path, skip_bad=True)
    assert [d.id for d in logs] == ["a", "b"]
    assert logs.reading.skipped == 2 and logs[:1].reading.skipped == 2
    assert logs.reading.notes() == [
        f"2 bad rows were left out; the first: {path}:2: expected a JSON object a line; found malformed JSON "
        "(Expecting property name enclosed in double quotes at column 3): {"
    ]
    assert read_logs(logs).reading == logs.reading
    path.write_text("{\n{")
    assert "(nothing would be left without them); they are:" in refusal(read_logs, path, skip_bad=True)
    logs = read_logs([OURS, 3, {"messages": 1}], skip_bad=True)
    assert (len(logs), logs.reading.skipped) == (1, 2)


# --- conversations without an outcome -----------------------------------------------------------------


def rated(*outcomes, **columns):
    rows = [OURS | {"id": str(i), "outcome": outcome} for i, outcome in enumerate(outcomes)]
    return [row | columns for row in rows]


def test_a_missing_outcome_is_not_a_zero():
    """1, 0 and two of which nobody knows anything: 0.5 on average of the two, and never 0.25."""
    logs = read_logs(rated(1, 0, None, None))
    assert [d.rated_by for d in logs] == ["outcome", "outcome", "nothing", "nothing"]
    assert repr(logs).endswith("mean return 0.5 (0 to 1) of 2, 2 without an outcome)")
    assert repr(read_logs(rated(None))).endswith("1 turn of the agent, no outcomes)")


@pytest.mark.parametrize(
    ("choice", "returns"),
    [("leave-out", [1, 0]), (0, [1, 0, 0, 0]), ("-1", [1, 0, -1, -1]), (0.5, [1, 0, 0.5, 0.5])],
)
def test_what_becomes_of_conversations_without_an_outcome_is_chosen(choice, returns):
    logs = read_logs(rated(1, 0, None, None), missing_outcome=choice)
    assert [d.undiscounted_return() for d in logs] == returns
    assert {d.rated_by for d in logs} == {"outcome"}
    became = {"leave-out": "were left out", 0: "count as 0", "-1": "count as -1", 0.5: "count as 0.5"}[choice]
    assert logs.reading.notes() == [f"2 conversations without an outcome {became}."]
    assert read_logs(rated(1, 0), missing_outcome=choice).reading.notes() == []


def test_a_choice_that_is_none():
    with pytest.raises(
        SettingError, match=r"^missing_outcome is 'zero'; expected leave-out, or the number that"
    ):
        read_logs(rated(1, None), missing_outcome="zero")


def test_rewards_of_messages_are_no_outcome_where_others_have_one():
    """Every turn costs 0.1; only the first says how it ended, and the third was cut and has not ended."""
    costly = [m | ({"reward": -0.1} if m["role"] == "assistant" else {}) for m in OURS["messages"]]
    rows = rated(1, None, None, messages=costly)
    rows[2]["truncated"] = True
    assert [d.undiscounted_return() for d in read_logs(rows, missing_outcome="leave-out")] == [0.9, -0.1]
    assert read_logs(rows[1:]) == read_logs(rows[1:], missing_outcome="leave-out"), "rewards alone are enough"


# --- feedback and prompts -----------------------------------------------------------------------------


def test_feedback_in_the_forms_of_others(tmp_path):
    asked = (Message("user", DARK),)
    path = tmp_path / "pairs.csv"
    path.write_text(
        f'prompt,chosen,rejected,margin\n{DARK},{FUSE},No.,"0.5"\n"[{{""from"":""human"",""value"":""x""}}]",y,z,\n'
    )
    assert list(read_feedback(path)) == [
        Pair(asked, FUSE, "No.", margin=0.5, id="pairs.csv:2"),
        Pair((Message("user", "x"),), "y", "z", id="pairs.csv:3"),
    ]
    path = tmp_path / "pairs.json"
    said = [{"role": "human", "content": [{"type": "text", "text": DARK}]}]
    sides = {"chosen": {"from": "gpt", "value": FUSE}, "rejected": [{"role": "bot", "content": "No."}]}
    path.write_text(json.dumps([{"prompt": said, **sides}], indent=1))
    assert list(read_feedback(path)) == [Pair(asked, FUSE, "No.", id="pairs.json[0]")]
    assert [row.prompt for row in read_prompts(path)] == [asked]
    like = {"prompt": DARK, "completion": FUSE, "label": "True"}
    assert list(read_feedback([like])) == [Like(asked, FUSE, True, id="row 0")]
    rep = {"prompt": [{"role": "caller", "content": DARK}], "completion": FUSE, "label": False}
    assert read_feedback([rep], map_role={"caller": "user"})[0].prompt == asked
    assert read_prompts([rep], map_role={"caller": "user"})[0].prompt == asked


@pytest.mark.parametrize(
    ("read", "good", "what"),
    [
        (read_feedback, {"prompt": DARK, "completion": FUSE, "label": True}, "judgement"),
        (read_prompts, {"prompt": DARK}, "prompt"),
    ],
)
def test_faults_of_feedback_and_prompts_are_told_together_or_left_out(read, good, what):
    rows = [good, {"prompt": 1}, good, {"completion": 2}]
    said = refusal(read, rows).split("\n  ")
    assert said[0].startswith(f"rows in memory: expected 4 rows that are each a {what}; found 2 that are not")
    assert [line.split(":")[0] for line in said[1:]] == ["row 1", "row 3"]
    found = read(rows, skip_bad=True)
    assert found.reading.skipped == 2 and found.reading.faults[0].startswith("row 1: ")


def test_the_first_row_tells_feedback_from_logs():
    like = {"prompt": DARK, "completion": FUSE, "label": True}
    assert holds_feedback([like]) and not holds_feedback([OURS]) and not holds_feedback([])
    assert holds_feedback(read_feedback([like])) and not holds_feedback(read_logs([OURS]))


def test_an_empty_outcome_is_a_missing_one() -> None:
    """Exports write an empty text where nobody rated; pandas and CSV do so too."""
    talk = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}]
    rows = [{"messages": talk, "outcome": x} for x in ("", "  ", "4")]
    assert [d.rated_by for d in read_logs(rows)] == ["nothing", "nothing", "outcome"]
