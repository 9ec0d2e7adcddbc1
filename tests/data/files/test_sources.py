"""Where logs lie: the same rows from every kind of file and folder, and the words for what cannot be read."""

import gzip
import json
import math
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from turnwise.data.files.logs import read_logs
from turnwise.run.errors import InputError

HELLO = {"role": "user", "content": "It does not start."}
REPLY = {"role": "assistant", "content": "Please test the fuse.", "reward": -0.05, "behavior_logp": -1.5}
GOOD = {"messages": [HELLO, REPLY]}
REST = " (1 of 3 rows; skip_bad leaves it out)"
NUMBER = "expected a finite number (at most 1e+30 in size); found"
fuzz = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def written(folder, *rows, name="logs.jsonl"):
    """A file with one line a row: bytes as they are, anything else as JSON (NaN included)."""
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    path = folder / name
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def refusal(source):
    with pytest.raises(InputError) as caught:
        read_logs(source)
    assert str(caught.value).replace("\n  ", "").isprintable(), "nothing that a terminal would obey"
    return str(caught.value)


def with_reply(**fields):
    return {"messages": [HELLO, REPLY | fields]}


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


def test_bad_places(tmp_path):
    empty = written(tmp_path, b"", name="empty.jsonl")
    assert refusal(empty) == f"{empty}: expected at least one conversation; found nothing (it is empty)"
    missing = tmp_path / "missing.jsonl"
    assert refusal(missing) == f"{missing}: expected a file, a folder or a dataset; found no such file"
    sheet = written(tmp_path, b"a,b", name="logs.xlsx")
    assert refusal(sheet) == (
        f"{sheet}: expected a name that ends in .jsonl, .ndjson, .json, .csv, .tsv, .jsonl.gz, .ndjson.gz, "
        '.json.gz, .csv.gz, .tsv.gz, .parquet; found "logs.xlsx"'
    )
    folder = tmp_path / "folder"
    folder.mkdir()
    written(folder, GOOD, name=".hidden.jsonl")
    assert refusal(folder).startswith(f"{folder}: expected files of rows in it (.jsonl, .ndjson, .json, ")
    assert refusal(folder).endswith("; found none")
    written(folder, b"Read me.", name="README.txt")
    assert refusal(folder).endswith("; found only README.txt")
    long = tmp_path / ("x" * 5000)
    assert refusal(long).startswith(f"{long}: expected what can be read; found [Errno 36] File name too")


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
    assert refusal(path) == f"{path}:3: messages[1].reward: {NUMBER} NaN" + REST
    parquet(pa, path, [GOOD] * 1500 + [with_reply(role="agent")])
    assert refusal(path).startswith(f"{path}:1501: messages[1].role: ")
    parquet(pa, path, [GOOD | {"outcome": o} for o in ("much", None)])
    assert refusal(path).startswith(f'{path}:1: outcome: {NUMBER} "much" (1 of 2 rows')
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
    datasets.Dataset.from_list([GOOD, with_reply(role="agent")]).save_to_disk(tmp_path / "bad")
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
        assert refusal(missing) == f"{missing}: expected a file, a folder or a dataset; found no such file"


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


# --- any bytes ---------------------------------------------------------------------------------------------


def read_or_refuse(path):
    """Rewards that pass are numbers that can be added up; nothing but InputError comes out."""
    try:
        for dialogue in read_logs(path):
            assert math.isfinite(dialogue.undiscounted_return())
    except InputError as error:
        assert str(error).replace("\n  ", "").isprintable()
        assert str(path) in str(error)


@fuzz
@given(
    st.sampled_from(["x.jsonl", "x.json", "x.json.gz", "x.csv", "x.tsv.gz", "x.parquet"]),
    st.binary(max_size=80),
    st.booleans(),
)
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
