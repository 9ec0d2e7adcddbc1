"""`turnwise train dpo | kto | ... | rloo | ...` from a clone to a better policy, and what they refuse."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoModelForCausalLM

from turnwise.cli import main
from turnwise.data.files.prompts import read_prompts
from turnwise.data.splits.heldout import is_held_out
from turnwise.envs.dialogue import Message

SMALL = [
    "--width",
    "16",
    "--layers",
    "1",
    "--heads",
    "2",
    "--context",
    "64",
    "--vocab",
    "400",
    "--epochs",
    "1",
]
REPLIES = ["--max-new-tokens", "4", "--evaluation-replies", "1"]
FEW = ["--steps", "2", "--prompts-per-step", "2"]

FUNCTION = """
def short(prompts, completions, answer, **columns):
    return [-float(len(c)) - a for c, a in zip(completions, answer, strict=True)]

def nothing(prompts, **columns):
    return []

def others(prompts, unknown, **columns):
    return [1.0] * len(prompts)
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone of a few postcards, feedback of each kind, prompts with a column, and a reward function."""
    home = tmp_path_factory.mktemp("home")
    cards = str(home / "cards.jsonl")
    make = ["data", "make", "--task", "postcards", "--conversations"]
    assert main([*make, "40", "--out", cards]) == 0
    assert main(["train", "bc", "--logs", cards, "--out", str(home / "bc"), *SMALL, "--heldout", "0"]) == 0
    for kind in ("pairs", "likes", "rankings", "scores"):
        assert main([*make, "24", "--feedback", kind, "--out", str(home / f"{kind}.jsonl")]) == 0
    asked = [{"prompt": f"Say {i}.", "answer": i} for i in range(20)]
    (home / "asked.jsonl").write_text("".join(json.dumps(r) + "\n" for r in asked))
    (home / "judges_of_replies.py").write_text(FUNCTION)
    pair = {"prompt": "Say 1.", "chosen": "one", "rejected": "two"}
    (home / "asked_pairs.jsonl").write_text(json.dumps(pair) + "\n")
    return home


def trained(home: Path, out: Path, name: str, *words: str, capsys: Any) -> dict[str, Any]:
    policy = ["--policy", str(home / "bc"), "--out", str(out)]
    assert main(["train", name, *policy, *REPLIES, *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("name", "file", "more"),
    [
        ("dpo", "pairs", []),
        ("dpo", "pairs", ["--formula", "ipo"]),
        ("dpo", "rankings", ["--formula", "ranking"]),
        ("kto", "likes", []),
        ("kto", "pairs", []),
        ("simpo", "pairs", []),
        ("orpo", "pairs", []),
    ],
)
def test_a_policy_from_preferences(
    name: str, file: str, more: list[str], home: Path, tmp_path: Path, capsys: Any
) -> None:
    """Held-out prompts are kept apart; the policy loads in `transformers`; gold is told and nothing else.

    How well it tells held-out pairs apart is, at the end, what was logged of the last step.
    """
    out = tmp_path / "run"
    words = ["--feedback", str(home / f"{file}.jsonl"), "--gold", "postcards", "--heldout", "0.3", *more]
    found = trained(home, out, name, *words, capsys=capsys)
    rows = 48 if (name, file) == ("kto", "pairs") else 24
    assert found["learnt"] + found["held_out"] == rows and found["held_out"]
    assert {"before", "after", "gained"} < set(found["measured"]) and "reward" not in found["measured"][
        "after"
    ]
    assert found["measured"]["before"]["kl"]["mean"] == pytest.approx(0, abs=1e-6)
    AutoModelForCausalLM.from_pretrained(out / "policy")
    page = (out / "report.html").read_text()
    assert "the gold of its replies, their true worth," in page and "Reward against distance" not in page
    before, after, gained = (found["measured"][k]["gold"] for k in ("before", "after", "gained"))
    assert gained["mean"] == pytest.approx(after["mean"] - before["mean"])
    card = json.loads((out / "card.json").read_text())
    assert (card["learnt"], card["held_out"]) == (found["learnt"], found["held_out"])
    quality, logged = found["quality"], found["metrics"]["heldout/rewards/accuracies"]
    assert quality["items"] == found["held_out"] // (2 if rows == 48 else 1)
    assert "held-out pairs" in page or "held-out rankings" in page or "were held out" in page
    assert quality["few"] and quality["cautions"] and quality["cautions"][0] in page
    assert ("tau" in quality, "auc" in quality) == (file == "rankings", file == "likes")
    if file == "pairs" and name != "kto":
        assert quality["accuracy"] == logged and not quality["ties"]
    if file == "pairs":
        assert quality["gain"] and sum(quality["rules"].values()) == 1
        assert ("before" in quality) == (name in ("simpo", "orpo"))


@pytest.mark.parametrize("name", ["rloo", "grpo", "token-ppo", "reply-reinforce", "online-dpo", "best-of-n"])
def test_a_policy_from_its_own_replies(name: str, home: Path, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "run"
    words = ["--prompts", "postcards", "--reward", "postcards", "--gold", "postcards", "--steps", "2"]
    words += ["--prompts-per-step", "4"] + (["--group", "4"] if name == "online-dpo" else [])
    found = trained(home, out, name, *words, capsys=capsys)
    after = found["measured"]["after"]
    assert after["reward"] == after["gold"] and after["kl"]["mean"] != 0
    assert found["metrics"]["reward"] == pytest.approx(found["metrics"]["gold"])
    assert {"kl", "entropy", "completions/mean_length"} <= set(found["metrics"])
    page = (out / "report.html").read_text()
    assert "square root of the KL" in page and found["measured"]["after"]["gold"]["mean"] < 10


def test_functions_and_models_judge(
    home: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A function sees its prompts' columns; a model's reward is in deviations of the clone's replies."""
    monkeypatch.chdir(home)
    words = ["--prompts", str(home / "asked.jsonl"), "--group", "2", *FEW]
    by_function = trained(
        home, tmp_path / "f", "rloo", *words, "--reward", "judges_of_replies:short", capsys=capsys
    )
    held = [i for i in range(20) if is_held_out((Message("user", f"Say {i}."),), 0.1)]
    assert held and by_function["prompts"] == 20 - len(held) and by_function["held_out"] == len(held)
    # A reply has some letters, and its prompt's answer is taken off.
    assert by_function["measured"]["before"]["reward"]["mean"] < -np.mean(held)
    assert f"{len(held)} prompts that this run did not learn from" in (tmp_path / "f/report.html").read_text()
    model = ["train", "reward", "--feedback", str(home / "pairs.jsonl"), "--model", str(home / "bc")]
    assert main([*model, "--out", str(tmp_path / "rm"), "--json"]) == 0
    capsys.readouterr()
    judge = ["--reward", str(tmp_path / "rm"), "--clip-reward", "1", "--per-token", "-0.1"]
    found = trained(home, tmp_path / "m", "grpo", *words, *judge, "--unfinished-penalty", "1", capsys=capsys)
    assert -2.5 < found["measured"]["before"]["reward"]["mean"] < 1


def test_a_single_prompt_has_no_interval(home: Path, tmp_path: Path, capsys: Any) -> None:
    """Its mean is told, on the page and in the result."""
    (tmp_path / "one.jsonl").write_text(json.dumps({"prompt": "Say 1.", "answer": 1}) + "\n")
    words = ["--prompts", str(tmp_path / "one.jsonl"), "--reward", "judges_of_replies:short", *FEW]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        found = trained(home, tmp_path / "run", "grpo", *words, "--group", "2", capsys=capsys)
    told = found["measured"]["after"]["reward"]
    assert told["low"] is None and told["mean"] < 0
    page = (tmp_path / "run" / "report.html").read_text()
    assert "prompts that it learnt from: none was held out" in page and "nothing of the spread" in page
    assert f"{told['mean']:.3f}".lstrip("-") in (tmp_path / "run" / "report.html").read_text()


def test_resuming_asks_for_the_same_and_adapters_learn(home: Path, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "run"
    words = ["--prompts", "postcards", "--reward", "postcards", "--lora-rank", "2", *FEW]
    first = trained(home, out, "rloo", *words, capsys=capsys)
    again = trained(home, out, "rloo", *words, "--resume", capsys=capsys)
    assert first["measured"] == again["measured"] and first["measured"]["after"]["kl"]["mean"] != 0
    policy = ["--policy", str(home / "bc"), "--out", str(out), *REPLIES]
    assert main(["train", "rloo", *policy, *words, "--resume", "--seed", "7"]) == 2
    assert "seed was 0 and is 7 now" in capsys.readouterr().err


JUDGED = ["rloo", "--prompts", "postcards", "--reward", "postcards"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["dpo", "--feedback", "likes.jsonl"], "expected pairs or rankings for DPO; found likes"),
        (["dpo", "--feedback", "rankings.jsonl"], "--formula dpo: expected ranking: "),
        (["kto", "--feedback", "scores.jsonl"], "expected likes"),
        (["dpo", "--feedback", "pairs.jsonl", "--gold", "x"], "expected postcards"),
        (
            ["rloo", "--prompts", "postcards", "--reward", "nowhere"],
            "expected the run folder of a reward model",
        ),
        (
            ["rloo", "--prompts", "postcards", "--reward", "judges_of_replies:no"],
            "expected a class or function of judges_of_replies: short,",
        ),
        (["rloo", "--prompts", "postcards", "--reward", "bc"], "expected the run of a reward model"),
        (
            ["rloo", "--prompts", "asked.jsonl", "--reward", "judges_of_replies:nothing"],
            "expected 2 rewards",
        ),
        (
            ["rloo", "--prompts", "asked.jsonl", "--reward", "postcards"],
            "expected the request for a postcard",
        ),
        (
            ["dpo", "--feedback", "asked_pairs.jsonl", "--gold", "postcards"],
            "gold of postcards: prompt: expected the request for a postcard",
        ),
        (
            [
                "rloo",
                "--prompts",
                "asked.jsonl",
                "--reward",
                "judges_of_replies:short",
                "--gold",
                "postcards",
            ],
            "gold of postcards: prompt: expected the request for a postcard",
        ),
        ([*JUDGED, "--minibatches", "5"], "--minibatches 5: expected at most the 4 prompts of a step"),
        (
            ["rloo", "--prompts", "cards.jsonl", "--reward", "postcards"],
            "cards.jsonl:1: prompt: expected text",
        ),
        (["kto", "--feedback", "rankings.jsonl"], "found rankings"),
        (["dpo", "--feedback", "pairs.jsonl", "--formula", "robust", "--noise", "0.5"], "--noise 0.5"),
        (["dpo", "--feedback", "pairs.jsonl", "--formula", "ipo", "--beta", "0"], "--beta 0"),
        (
            ["dpo", "--feedback", "pairs.jsonl", "--noise", "0.2"],
            "--noise 0.2: expected formula conservative or robust, which alone take it",
        ),
        ([*JUDGED, "--group", "1"], "--group 1: expected 2"),
        (["grpo", *JUDGED[1:], "--group", "1"], "--group 1: expected 2"),
        (["best-of-n", *JUDGED[1:], "--group", "0"], "--group 0: expected 1 or more"),
        ([*JUDGED, "--clip-reward", "-1"], "--clip-reward -1.0: expected a number above 0"),
        ([*JUDGED, "--kl-target", "0"], "--kl-target 0.0: expected a number above 0"),
        (
            [*JUDGED, "--kl-target", "1", "--beta", "0"],
            "--beta 0.0: expected a number above 0 with kl_target",
        ),
        ([*JUDGED, "--evaluation-replies", "0"], "--evaluation-replies 0: expected 1 or more"),
        ([*JUDGED, "--prompts-per-step", "0"], "--prompts-per-step 0: expected 1 or more"),
        (
            ["reply-reinforce", *JUDGED[1:], "--prompts-per-step", "1"],
            "--prompts-per-step 1: expected 2 or more for baseline batch",
        ),
        (
            ["rloo", "--prompts", "asked.jsonl", "--reward", "judges_of_replies:others"],
            "others failed with TypeError",
        ),
        ([*JUDGED, "--max-new-tokens", "60"], "prompts leave no room for 60 tokens in the context of 64"),
    ],
)
def test_what_cannot_work_is_said_in_a_line(
    words: list[str], expected: str, home: Path, tmp_path: Path, capsys: Any, monkeypatch: Any
) -> None:
    monkeypatch.chdir(home)
    name, *rest = words
    more = [] if name in ("dpo", "kto") else ["--steps", "1", "--prompts-per-step", "4"]
    out = tmp_path / "run"
    assert main(["train", name, "--policy", "bc", "--out", str(out), *REPLIES, *more, *rest]) == 2
    _, error, said = capsys.readouterr().err.rpartition("turnwise: error: ")
    assert error and expected in said
    assert not out.exists()
    shutil.rmtree(out, ignore_errors=True)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["dpo", "--feedback", "pairs", "--batch-size", "5", "--epochs", "2"], {"learnt": 24, "steps": 10}),
        (["kto", "--feedback", "likes", "--batch-size", "24"], {"learnt": 24, "steps": 1}),
        (
            ["reward", "--feedback", "pairs", "--batch-size", "7", "--epochs", "3"],
            {"learnt": 24, "steps": 12},
        ),
        (["grpo", "--prompts", "postcards", "--reward", "postcards", "--steps", "9"], {"steps": 9}),
    ],
)
def test_a_dry_run_times_a_few_steps_and_writes_nothing(
    words: list[str], expected: dict[str, int], home: Path, tmp_path: Path, capsys: Any
) -> None:
    name, flag, what, *more = words
    data = str(home / f"{what}.jsonl") if flag == "--feedback" else what
    more += ["--heldout", "0"] if flag == "--feedback" else ["--prompts-per-step", "2", *REPLIES]
    more += ["--model" if name == "reward" else "--policy", str(home / "bc"), "--out", str(tmp_path / "x")]
    assert main(["train", name, flag, data, *more, "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert {k: plan[k] for k in expected} == expected
    assert plan["algorithm"] == name and plan["parameters"] > 1000 and plan["estimated_seconds"] > 0
    assert not list(tmp_path.iterdir())


def test_what_is_too_long_is_left_out_and_told(home: Path, tmp_path: Path, capsys: Any) -> None:
    """One pair and one prompt more than fit a context of 64; where none fits it is an error."""
    long = {"prompt": "far " * 80, "chosen": "One.", "rejected": "Two."}
    rows = [*(home / "pairs.jsonl").read_text().splitlines(), json.dumps(long)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(rows) + "\n")
    words = ["--policy", str(home / "bc"), *REPLIES, "--heldout", "0.3", "--feedback"]
    out = ["--out", str(tmp_path / "run"), "--json"]
    assert main(["train", "dpo", *words, str(tmp_path / "pairs.jsonl"), *out]) == 0
    said = capsys.readouterr()
    left = "1 of 25 items are longer than the context of 64 even with the last message of their prompt alone"
    assert (
        f"warning: {left}; left out." in said.err and left in (tmp_path / "run" / "report.html").read_text()
    )
    found = json.loads(said.out)
    assert found["learnt"] + found["held_out"] == 24
    (tmp_path / "long.jsonl").write_text(json.dumps(long) + "\n")
    words[words.index("--heldout") + 1] = "0"
    assert main(["train", "dpo", *words, str(tmp_path / "long.jsonl"), "--out", str(tmp_path / "no")]) == 2
    assert "none of 1 items fits the context of 64 tokens (the shortest, " in capsys.readouterr().err

    # The long prompt alone is held out, and does not fit: the others are measured.
    kept = [p for p in (f"Say {i}." for i in range(40)) if not is_held_out((Message("user", p),), 0.1)][:5]
    far = next(p for p in ("far " * n for n in range(80, 200)) if is_held_out((Message("user", p),), 0.1))
    asked = [{"prompt": p} for p in (*kept, far)]
    (tmp_path / "asked.jsonl").write_text("".join(json.dumps(r) + "\n" for r in asked))
    (tmp_path / "len_of.py").write_text("def nothing(completions, **c): return [len(x) for x in completions]")
    words = ["--policy", str(home / "bc"), *REPLIES, *FEW, "--reward", "len_of:nothing", "--prompts"]
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(tmp_path)
        assert (
            main(["train", "rloo", *words, str(tmp_path / "asked.jsonl"), "--out", str(tmp_path / "r")]) == 0
        )
    assert (
        "warning: 1 of 6 prompts leave no room for 4 tokens in the context of 64" in capsys.readouterr().err
    )


def test_prompts_come_from_any_feedback(tmp_path: Path) -> None:
    """Chats, transcripts, OpenAI's pairs: none has a column prompt; repeats with other columns are told."""
    ask, say = {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}
    no = {"role": "assistant", "content": "No."}
    rows: list[dict[str, Any]] = [
        {"chosen": [ask, say], "rejected": [ask, no], "source": "a"},
        {"chosen": "\n\nHuman: How?\n\nAssistant: So.", "rejected": "\n\nHuman: How?\n\nAssistant: No."},
        {"prompt": "\n\nHuman: Who?\n\nAssistant:", "chosen": " I.", "rejected": " You."},
        {"input": {"messages": [{**ask, "content": "What?"}]}, "preferred_output": [say],
         "non_preferred_output": [no]},
        {"prompt": "Why?", "source": "b"},
    ]  # fmt: skip
    path = tmp_path / "p.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    found = read_prompts(str(path))
    said = {row.prompt[-1].content: row.columns for row in found}
    assert set(said) == {"Why?", "How?", "Who?", "What?"} and not found.text
    assert said["Why?"] == {"source": "a"} and found.repeated == 1


def test_resuming_on_other_data_is_refused(home: Path, tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "pairs.jsonl"
    shutil.copy(home / "pairs.jsonl", path)
    trained(home, tmp_path / "run", "dpo", "--feedback", str(path), capsys=capsys)
    path.write_text("\n".join(path.read_text().splitlines()[:-1]) + "\n")
    words = ["--policy", str(home / "bc"), "--out", str(tmp_path / "run"), *REPLIES]
    assert main(["train", "dpo", *words, "--feedback", str(path), "--resume"]) == 2
    assert "data was '24 rows, " in (said := capsys.readouterr().err) and "is '23 rows, " in said


def test_a_page_of_a_run_that_has_not_ended_says_so(home: Path, tmp_path: Path, capsys: Any) -> None:
    folder = tmp_path / "run"
    trained(home, folder, "dpo", "--feedback", str(home / "pairs.jsonl"), capsys=capsys)
    assert "has not come to its end" not in (folder / "report.html").read_text()
    (folder / "result.json").unlink()
    assert main(["report", "--run", str(folder)]) == 0
    assert "training has not come to its end" in (folder / "report.html").read_text()
