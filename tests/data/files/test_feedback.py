"""Reading and writing feedback: what comes out of each shape, and the words that refuse each bad row."""

import json
import math
import string

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from turnwise.data.dialogue import ROLES
from turnwise.data.feedback import Like, Pair, Ranking, Score, kind_of
from turnwise.data.files.feedback import (
    COLUMNS,
    COMMON,
    OPENAI,
    read_feedback,
    to_row,
    write_feedback,
)
from turnwise.envs.dialogue import Message
from turnwise.run.errors import InputError

ASKED = (Message("user", "Why is it dark?"),)
USER = {"role": "user", "content": "Why is it dark?"}
BULB = {"role": "assistant", "content": "The bulb."}
FUSE = {"role": "assistant", "content": "The fuse."}
PAIR = {"prompt": "Why is it dark?", "chosen": "The fuse.", "rejected": "The bulb."}
RANKING = {"prompt": "Why is it dark?", "completions": ["The fuse.", "The bulb.", "Night."]}
LIKE = {"prompt": "Why is it dark?", "completion": "The fuse.", "label": True}
SCORE = {"prompt": "Why is it dark?", "completion": "The fuse.", "score": 3}
fuzz = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def written(folder, *rows, name="f.jsonl"):
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def refusal(folder, *rows, kind=None):
    """What is said of rows, from the line on."""
    with pytest.raises(InputError) as caught:
        read_feedback(written(folder, *rows), kind)
    said = str(caught.value)
    assert said.isprintable(), "one line, nothing that a terminal would obey"
    return said.removeprefix(f"{folder}/").replace(f"{folder}/", "")


# --- what comes out -----------------------------------------------------------------------------------


def test_every_kind_from_plain_text(tmp_path):
    """Plain prompts are one message of the user; what has no column is absent; other columns are metadata."""
    row = PAIR | {"margin": 2, "annotator": 7, "id": "a", "source": "web", "gone": None}
    pair, second = read_feedback(written(tmp_path, row, PAIR | {"tie": True, "margin": None}))
    assert pair == Pair(ASKED, "The fuse.", "The bulb.", 2.0, False, "7", "a", {"source": "web"})
    assert second == Pair(ASKED, "The fuse.", "The bulb.", tie=True, id="f.jsonl:2")
    assert read_feedback(written(tmp_path, LIKE, LIKE | {"label": False, "annotator": "Ann"})) == [
        Like(ASKED, "The fuse.", True, id="f.jsonl:1"),
        Like(ASKED, "The fuse.", False, "Ann", id="f.jsonl:2"),
    ]
    assert read_feedback(written(tmp_path, SCORE)) == [Score(ASKED, "The fuse.", 3.0, id="f.jsonl:1")]


def test_rankings_with_ranks_and_without(tmp_path):
    """Without ranks the order is the ranking, the best first; equal ranks are a tie; the same reply may be
    there twice where it has one rank."""
    replies = ("The fuse.", "The bulb.", "Night.")
    twice = RANKING | {"completions": ["a", "b", "a"], "ranks": [1, 2, 1]}
    first, second, third = read_feedback(
        written(tmp_path, RANKING, RANKING | {"ranks": [2, 1, 2]}, twice), "rankings"
    )
    assert first == Ranking(ASKED, replies, (1, 2, 3), id="f.jsonl:1")
    assert second == Ranking(ASKED, replies, (2, 1, 2), id="f.jsonl:2")
    assert second.order == (1, 0, 2)
    assert third.ranks == (1, 2, 1)


@pytest.mark.parametrize(
    ("prompt", "chosen", "rejected"),
    [
        ([USER], "The fuse.", "The bulb."),
        ([USER], [FUSE], [BULB]),
        ("Why is it dark?", [FUSE], [BULB]),
        ("Why is it dark?", [USER, FUSE], [USER, BULB]),
        ("Why is it dark?", [USER, FUSE], "The bulb."),
        (None, [USER, FUSE], [USER, BULB]),
    ],
)
def test_the_same_pair_in_every_shape(prompt, chosen, rejected, tmp_path):
    """Text, messages after the prompt, whole conversations, implicit prompts: one pair."""
    row = {"prompt": prompt, "chosen": chosen, "rejected": rejected, "id": 1}
    assert read_feedback(written(tmp_path, row)) == [Pair(ASKED, "The fuse.", "The bulb.", id="1")]


def test_transcripts_are_messages(tmp_path):
    """Texts of Human: and Assistant:, without a prompt; an empty line inside a message is no new turn."""
    asked = "\n\nHuman: Why is\n\nit dark?\n\nAssistant: The bulb.\n\nHuman: It is new.\n\nAssistant:"
    prompt = (
        Message("user", "Why is\n\nit dark?"),
        Message("assistant", "The bulb."),
        Message("user", "It is new."),
    )
    (pair,) = read_feedback(
        written(tmp_path, {"chosen": asked + " The fuse.", "rejected": asked + " No idea."})
    )
    assert (pair.prompt, pair.replies) == (prompt, ("The fuse.", "No idea."))
    (like,) = read_feedback(written(tmp_path, {"completion": asked + " The fuse.", "label": True}))
    assert (like.prompt, like.completion) == (prompt, "The fuse.")
    for chosen in ("The fuse.", asked + " The fuse."):  # with the prompt in a column of its own
        (pair,) = read_feedback(written(tmp_path, {"prompt": asked, "chosen": chosen, "rejected": "No."}))
        assert (pair.prompt, pair.replies) == (prompt, ("The fuse.", "No."))


def test_openai_pairs(tmp_path):
    """What else its input holds is metadata, empty values kept."""
    row = {
        "input": {"messages": [USER], "tools": []},
        "preferred_output": [FUSE],
        "non_preferred_output": [BULB],
    }
    (pair,) = read_feedback(written(tmp_path, row))
    assert pair == Pair(ASKED, "The fuse.", "The bulb.", id="f.jsonl:1", metadata={"input": {"tools": []}})


def test_turns_before_the_reply_are_prompt(tmp_path):
    """A prompt of several turns is kept; of conversations what they share is the prompt, and where only the
    last message differs in nothing (a tie) it is still the reply."""
    turns = [
        {"role": "system", "content": "Be brief."},
        USER,
        BULB,
        {"role": "user", "content": "It is new."},
    ]
    prompt = tuple(Message(m["role"], m["content"]) for m in turns)
    no = {"role": "assistant", "content": "No idea."}
    rows = [
        {"prompt": turns, "chosen": "The fuse.", "rejected": "No idea."},
        {"chosen": [*turns, FUSE], "rejected": [*turns, no]},
        {"prompt": turns[:2], "chosen": [*turns[2:], FUSE], "rejected": [*turns[2:], no]},
    ]
    for pair in read_feedback(written(tmp_path, *rows)):
        assert (pair.prompt, pair.replies) == (prompt, ("The fuse.", "No idea."))
    (tie,) = read_feedback(
        written(tmp_path, {"chosen": [*turns, FUSE], "rejected": [*turns, FUSE], "tie": True})
    )
    assert (tie.prompt, tie.replies) == (prompt, ("The fuse.", "The fuse."))
    (like,) = read_feedback(written(tmp_path, {"completion": [*turns, FUSE], "label": True}))
    assert (like.prompt, like.completion) == (prompt, "The fuse.")
    (ranked,) = read_feedback(written(tmp_path, {"completions": [[*turns, no], [*turns, FUSE], [*turns, no]],
                                                 "ranks": [2, 1, 2]}))  # fmt: skip
    assert (ranked.prompt, ranked.replies) == (prompt, ("No idea.", "The fuse.", "No idea."))


def test_a_kind_that_is_named_makes_the_rest_metadata(tmp_path):
    row = LIKE | {"score": 0.5}
    assert refusal(tmp_path, row) == (
        "f.jsonl:1: expected columns of one kind, or the setting kind to say which is meant; "
        "found those of likes and scores"
    )
    (like,) = read_feedback(written(tmp_path, row), "likes")
    assert (like.liked, like.metadata) == (True, {"score": 0.5})
    (score,) = read_feedback(written(tmp_path, row), "scores")
    assert (score.score, score.metadata) == (0.5, {"label": True})
    (pair,) = read_feedback(written(tmp_path, PAIR | {"score": 1}))
    assert pair.metadata == {"score": 1}, "a score without a completion is no score of a reply"


# --- formats and round trips --------------------------------------------------------------------------


def test_parquet_and_datasets(tmp_path):
    """Nulls that Arrow fills in are absent, in messages too."""
    pyarrow = pytest.importorskip("pyarrow")
    datasets = pytest.importorskip("datasets")
    import pyarrow.parquet as parquet

    items = [
        Pair(ASKED, "a", "b", 0.5, annotator="x", id="1", metadata={"n": 1}),
        Pair((Message("system", "s"), *ASKED), "ä", "", tie=True, id="2"),
    ]
    rows = [to_row(item) for item in items]
    table = pyarrow.Table.from_pylist(rows, schema=pyarrow.Table.from_pylist([rows[0] | rows[1]]).schema)
    parquet.write_table(table, tmp_path / "f.parquet")
    assert read_feedback(tmp_path / "f.parquet") == items
    datasets.DatasetDict({"dev": datasets.Dataset(table)}).save_to_disk(str(tmp_path / "saved"))
    assert read_feedback(f"{tmp_path / 'saved'}:dev") == items
    likes = datasets.Dataset.from_list([LIKE, LIKE | {"label": None}])
    likes.save_to_disk(str(tmp_path / "likes"))
    with pytest.raises(InputError, match=r"likes:2: label: expected true or false; found nothing"):
        read_feedback(tmp_path / "likes")


texts = st.text(st.characters(codec="utf-8"), max_size=8)
names = st.text(string.ascii_letters, min_size=1, max_size=6)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
numbers = st.floats(-1e30, 1e30)
prompts = st.builds(
    lambda before, last: (*before, last),
    st.lists(st.builds(Message, st.sampled_from(ROLES), texts), max_size=3),
    st.builds(Message, st.sampled_from(("user", "system", "tool")), texts),
)


@st.composite
def items(draw, kind):
    """An item without an id; metadata of any name that is no column of its kind."""
    own = {*COMMON, *COLUMNS[kind]}
    values = st.integers(-9, 9) | texts | st.lists(texts, max_size=2)
    keys = (names | st.sampled_from([*OPENAI, *sum(COLUMNS.values(), ())])).filter(lambda k: k not in own)
    shared = {
        "annotator": draw(st.none() | texts.filter(bool)),
        "metadata": draw(st.dictionaries(keys, values, max_size=3)),
    }
    prompt = draw(prompts)
    if kind == "pairs":
        chosen, rejected = draw(texts), draw(texts)
        tie = chosen == rejected or draw(st.booleans())
        return Pair(prompt, chosen, rejected, draw(st.none() | numbers), tie, **shared)
    if kind == "rankings":
        ranked = draw(st.dictionaries(texts, st.integers(0, 5), min_size=2, max_size=4))
        return Ranking(prompt, tuple(ranked), tuple(ranked.values()), **shared)
    if kind == "likes":
        return Like(prompt, draw(texts), draw(st.booleans()), **shared)
    return Score(prompt, draw(texts), draw(numbers), **shared)


@settings(fuzz, max_examples=25)  # each writes two files to the disk
@given(st.sampled_from(list(COLUMNS)).flatmap(lambda kind: st.lists(items(kind), min_size=1, max_size=3)))
def test_what_is_written_reads_back(tmp_path, some):
    """Reading gives the items, ids apart, which are their places; once more gives them with those ids."""
    kind = kind_of(some[0])
    write_feedback(tmp_path / "f.jsonl", some, overwrite=True)
    read = read_feedback(tmp_path / "f.jsonl", kind)
    assert [to_row(i) for i in read] == [{"id": f"f.jsonl:{n}"} | to_row(i) for n, i in enumerate(some, 1)]
    write_feedback(tmp_path / "g.jsonl", read, overwrite=True)
    assert read_feedback(tmp_path / "g.jsonl", kind) == read


@fuzz
@given(
    st.sampled_from([PAIR, RANKING, LIKE, SCORE]),
    st.sampled_from(["prompt", "chosen", "rejected", "margin", "tie", "completions", "ranks", "completion",
                     "label", "score", "id", "annotator", *OPENAI]),
    json_values | st.lists(st.fixed_dictionaries({"role": json_values, "content": json_values}), max_size=2),
)  # fmt: skip
def test_anything_is_read_or_refused_in_one_line(tmp_path, row, field, value):
    """A field with any value: the item that is read has every invariant, or one line names file and line."""
    path = written(tmp_path, row | {field: value})
    try:
        (item,) = read_feedback(path)
    except InputError as error:
        assert str(error).isprintable() and str(error).startswith(f"{path}:1: ")
        return
    assert item.prompt and item.prompt[-1].role != "assistant" and item.id
    assert all(isinstance(reply, str) and reply.encode() is not None for reply in item.replies)
    assert len(set(item.replies)) > 1 or not isinstance(item, Pair) or item.tie


def test_written_whole_or_not_at_all(tmp_path):
    """Two kinds, an id twice or metadata under a field's name: refused, and no file is there."""
    pair, like = Pair(ASKED, "a", "b", id="1"), Like(ASKED, "a", True, id="2")
    path = tmp_path / "f.jsonl"
    with pytest.raises(ValueError, match="one kind; got pairs and likes"):
        write_feedback(path, [pair, like])
    with pytest.raises(ValueError, match="two items have the id '1'"):
        write_feedback(path, [pair, pair])
    with pytest.raises(ValueError, match=r"\['margin'\] are fields of the format of pairs"):
        write_feedback(path, [Pair(ASKED, "a", "b", metadata={"margin": 1})])
    with pytest.raises(InputError, match="expected values that JSON holds"):
        write_feedback(path, [Pair(ASKED, "a", "\ud800")])
    assert not list(tmp_path.iterdir())
    assert write_feedback(path, [pair]) == 1
    with pytest.raises(InputError, match="expected a new file"):
        write_feedback(path, [pair])


# --- words of refusals --------------------------------------------------------------------------------

MESSAGES = "expected text or a list of messages, each with role and content"
END = "expected one message of the assistant at its end"
SHARED = f"{END} (what comes before is the prompt, the same for every reply)"
TWICE = (
    "expected the message that is answered at the end of the prompt; "
    "found one of the assistant, who would speak twice"
)
ROLE = "expected one of system, user, assistant, tool (map_role says what another name means)"
AFTER = "expected what the assistant says after the prompt, or the prompt and then that"
NUMBER = "expected a finite number (at most 1e+30 in size)"
TOOL = {"role": "assistant", "tool_calls": [{"name": "test"}]}
COLUMNS_SAID = (
    "expected the columns of pairs (prompt, chosen, rejected), rankings (prompt, completions), "
    "likes (prompt, completion, label) or scores (prompt, completion, score)"
)
BAD_PAIRS = [
    ({"prompt": None}, f"prompt: {MESSAGES}; found nothing"),
    ({"prompt": []}, f"prompt: {MESSAGES}; found []"),
    ({"prompt": 1}, f"prompt: {MESSAGES}; found 1"),
    ({"prompt": ["Hi"]}, 'prompt[0]: expected an object with role and content; found "Hi"'),
    ({"prompt": [USER, BULB]}, f"prompt[1].role: {TWICE}"),
    (
        {"prompt": [{"role": "x"}]},
        f'prompt[0].role: {ROLE}; found "x"',
    ),
    ({"prompt": [{"role": "user"}]}, "prompt[0].content: expected a string; found nothing"),
    ({"prompt": "\ud800"}, 'prompt: expected a string; found "\\ud800"'),
    ({"chosen": None}, f"chosen: {MESSAGES}; found nothing"),
    ({"chosen": []}, f"chosen: {MESSAGES}; found []"),
    (
        {"chosen": [TOOL]},
        "chosen: expected a reply in words (tool calls are read in prompts alone); found tool calls",
    ),
    (
        {"chosen": [{"role": "user", "content": "x"}, FUSE]},
        f"chosen[0].role: {AFTER}; found a message of the user",
    ),
    ({"chosen": [FUSE, USER]}, f"chosen: {SHARED}; found assistant, user"),
    ({"rejected": "The fuse."}, 'rejected: expected another reply than chosen, or a tie; found "The fuse."'),
    ({"prompt": None, "chosen": [FUSE], "rejected": [BULB]}, f"prompt: {MESSAGES}; found nothing"),
    (
        {"prompt": None, "chosen": [USER, BULB, FUSE], "rejected": [USER, BULB, BULB]},
        f"chosen[1].role: {TWICE}",
    ),
    (
        {"prompt": None, "chosen": [USER, FUSE], "rejected": [USER, BULB, USER, FUSE]},
        f"rejected: {SHARED}; found assistant, user, assistant",
    ),
    ({"margin": "one"}, f'margin: {NUMBER}; found "one"'),
    ({"margin": math.inf}, f"margin: {NUMBER}; found Infinity"),
    ({"tie": 1}, "tie: expected true or false; found 1"),
    ({"id": 1.5}, "id: expected text or a whole number; found 1.5"),
    ({"annotator": ""}, 'annotator: expected text or a whole number; found ""'),
]
BAD_RANKINGS = [
    ({"completions": "x"}, 'completions: expected a list of two or more replies; found "x"'),
    ({"completions": ["x"]}, 'completions: expected a list of two or more replies; found ["x"]'),
    (
        {"completions": ["x", "y"], "labels": [True, False]},
        "ranks: expected ranks of the completions (labels of steps are not read); found nothing",
    ),
    ({"completions": ["x", 1]}, f"completions[1]: {MESSAGES}; found 1"),
    ({"ranks": [1, 2]}, "ranks: expected a list of 3 whole numbers, one for each reply; found [1, 2]"),
    ({"ranks": [1, 2.5, 3]}, "ranks[1]: expected a whole number, the smaller the better; found 2.5"),
    ({"ranks": [1, True, 3]}, "ranks[1]: expected a whole number, the smaller the better; found true"),
    (
        {"completions": ["x", "y", "x"]},
        'completions[2]: expected another reply than completions[0], or the same rank; found "x"',
    ),
]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (3, "expected a JSON object a line; found 3"),
        *((PAIR | change, said) for change, said in BAD_PAIRS),
        *((RANKING | change, said) for change, said in BAD_RANKINGS),
        (LIKE | {"label": 1}, "label: expected true or false; found 1"),
        (LIKE | {"completion": [FUSE, USER]}, f"completion: {END}; found user"),
        (SCORE | {"score": True}, f"score: {NUMBER}; found true"),
        (
            {"input": "x", "preferred_output": [FUSE]},
            'input: expected an object with messages; found "x"',
        ),
        (
            {"input": {"messages": [USER]}, "preferred_output": [FUSE]},
            f"non_preferred_output: {MESSAGES}; found nothing",
        ),
        ({"prompt": "x", "text": "y"}, f"{COLUMNS_SAID}; found prompt, text"),
    ],
)
def test_words_of_a_bad_row(row, said, tmp_path):
    assert refusal(tmp_path, row) == f"f.jsonl:1: {said}"


def test_words_about_several_rows(tmp_path):
    """Ids, kinds that change, columns that stop; and what is there at all."""
    rest = " (1 of 2 rows; skip_bad leaves it out)"
    twice = 'f.jsonl:2: id: expected an id of its own (f.jsonl:1 has it too); found "1"'
    assert refusal(tmp_path, PAIR | {"id": 1}, PAIR | {"id": "1"}) == twice + rest
    assert refusal(tmp_path, PAIR, LIKE) == "f.jsonl:2: expected pairs, as in f.jsonl:1; found likes" + rest
    stopped = "f.jsonl:2: score: expected a finite number (at most 1e+30 in size); found nothing"
    assert refusal(tmp_path, SCORE, SCORE | {"score": None}) == stopped + rest
    assert refusal(tmp_path) == "f.jsonl: expected at least one judgement; found nothing (it is empty)"
    assert refusal(tmp_path, LIKE, kind="stars") == (
        "kind is 'stars'; expected one of pairs, rankings, likes, scores"
    )
    (tmp_path / "deep.jsonl").write_text(json.dumps(PAIR)[:-1] + ', "x": ' + "[" * 5000 + "]" * 5000 + "}\n")
    with pytest.raises(InputError, match="values nested too deeply"):
        read_feedback(tmp_path / "deep.jsonl")
    with pytest.raises(InputError, match="no name is given"):
        read_feedback(" ")
