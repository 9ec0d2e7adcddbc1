"""The command line as people and scripts meet it: small real runs, no stand-ins."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from turnwise.cli import main
from turnwise.models.lm.fresh import train_tokenizer
from turnwise.models.lm.pretrained import save_lm
from turnwise.recipes.demo import with_taken
from turnwise.rollout.load import load_agent

SMALL = [
    "--width",
    "16",
    "--layers",
    "1",
    "--heads",
    "2",
    "--context",
    "256",
    "--vocab",
    "400",
    "--epochs",
    "1",
    "--max-new-tokens",
    "12",
]


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    path = tmp_path_factory.mktemp("logs") / "logs.jsonl"
    assert main(["data", "make", "--out", str(path), "--conversations", "80", "--seed", "3"]) == 0
    return path


@pytest.fixture(scope="module")
def cloned(logs, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "bc"
    assert main(["train", "bc", "--logs", str(logs), "--out", str(out), *SMALL]) == 0
    return out


def printed_json(capsys):
    """The one object on stdout."""
    return json.loads(capsys.readouterr().out)


def test_help_needs_no_torch_and_is_quick():
    code = (
        "import sys, turnwise.cli as c; c.main(['--help']); assert not {'torch', 'tyro'} & set(sys.modules)"
    )
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "usage: turnwise VERB" in done.stdout
    assert time.perf_counter() - began < 30  # not a timing test: it only must not hang


@pytest.mark.parametrize("words", [["nonsense"], ["train", "nonsense"], ["data", "nonsense"]])
def test_unknown_verbs_name_the_known_ones(words, capsys):
    assert main(words) == 2
    error = capsys.readouterr().err
    assert "nonsense" in error and "expected one of" in error


def test_a_cloned_policy_loads_without_turnwise(cloned):
    """The policy folder is a plain transformers model; its logits are those of the agent."""
    lm = AutoModelForCausalLM.from_pretrained(cloned / "policy")
    tokenizer = AutoTokenizer.from_pretrained(cloned / "policy")
    chat = [{"role": "user", "content": "Hi! I need help."}]
    ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt")["input_ids"]
    agent = load_agent(cloned)
    torch.testing.assert_close(lm(ids).logits, agent.lm(ids).logits)
    assert agent.tokenizer.get_vocab() == tokenizer.get_vocab()


@pytest.mark.parametrize("name, options", [
    ("ilql", ["--beta", "4", "--top-k", "20"]),
    ("mc", ["--adv-clip", "0"]),
    ("turn-iql", ["--proposals", "3"]),
])  # fmt: skip
def test_critics_train_save_load_act_and_report(name, options, logs, cloned, tmp_path, capsys):
    out = tmp_path / name
    words = ["train", name, "--logs", str(logs), "--policy", str(cloned), "--out", str(out), "--epochs", "1"]
    words += ["--max-new-tokens", "12"]
    assert main([*words, *options, "--json"]) == 0
    result = printed_json(capsys)
    assert result["algorithm"] == name and result["metrics"]["step"] >= 0
    agent, again = load_agent(out), load_agent(out / "policy")
    assert agent.acting == again.acting
    for a, b in zip(agent.critic.parameters(), again.critic.parameters(), strict=True):
        assert torch.equal(a, b)
    assert main(["evaluate", "--run", str(out), "--episodes", "6", "--lanes", "4", "--betas", "1", "2",
                 "--validation-episodes", "2", "--json"]) == 0  # fmt: skip
    found = printed_json(capsys)
    assert found["low"] <= found["mean"] <= found["high"] and found["episodes"] == 6
    known = {r["role"]: r["mean"] for r in found["references"]}
    assert known["optimum"] == pytest.approx(0.5675, abs=1e-4)
    assert {t["beta"] for t in found["validation"]} == {1.0, 2.0}
    lines = (out / "conversations.jsonl").read_text().strip("\n").split("\n")
    spoken = [m for line in lines for m in json.loads(line)["messages"] if m["role"] == "assistant"]
    assert all(np.isfinite(m["advantage"]) for m in spoken)
    assert main(["report", "--run", str(out)]) == 0
    assert "<html" in (out / "report.html").read_text()


def test_the_same_seed_evaluates_to_the_same_numbers(cloned, capsys):
    found = []
    for lanes in ("3", "8"):
        assert main(["evaluate", "--run", str(cloned), "--episodes", "8", "--lanes", lanes, "--json"]) == 0
        found.append(printed_json(capsys)["mean"])
    assert found[0] == found[1]


@pytest.mark.parametrize("kind", ["gpt2", "qwen2"])
def test_any_causal_lm_by_path(kind, logs, tmp_path, capsys):
    """GPT-2- and Qwen-style models saved locally, cloned into with LoRA, saved merged."""
    tokenizer = train_tokenizer(["Please check the battery for me."], 300, 256)
    torch.manual_seed(0)
    if kind == "gpt2":
        lm = GPT2LMHeadModel(
            GPT2Config(vocab_size=len(tokenizer), n_positions=256, n_embd=16, n_layer=1, n_head=2)
        )
    else:
        lm = Qwen2ForCausalLM(Qwen2Config(
            vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=1,
            num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=256,
        ))  # fmt: skip
    save_lm(tmp_path / "start", lm, tokenizer)
    words = [
        "train",
        "bc",
        "--logs",
        str(logs),
        "--out",
        str(tmp_path / "bc"),
        "--model",
        str(tmp_path / "start"),
    ]
    assert main([*words, "--epochs", "2", "--lora-rank", "2", "--json"]) == 0
    assert printed_json(capsys)["metrics"]["loss"] > 0
    trained = AutoModelForCausalLM.from_pretrained(tmp_path / "bc" / "policy")
    assert type(trained) is type(lm)
    moved = [
        not torch.equal(a, b)
        for a, b in zip(trained.state_dict().values(), lm.state_dict().values(), strict=True)
    ]
    assert any(moved) and not all(moved)
    words = [
        "train",
        "ilql",
        "--logs",
        str(logs),
        "--policy",
        str(tmp_path / "bc"),
        "--out",
        str(tmp_path / "q"),
    ]
    assert main([*words, "--epochs", "1", "--lora-rank", "2", "--max-new-tokens", "12"]) == 0
    assert main(["evaluate", "--run", str(tmp_path / "q"), "--episodes", "2"]) == 0


def test_dry_run_writes_nothing(logs, tmp_path, capsys):
    words = ["train", "bc", "--logs", str(logs), "--out", str(tmp_path / "x"), *SMALL, "--dry-run", "--json"]
    assert main(words) == 0
    plan = printed_json(capsys)
    assert plan["conversations"] == 80 and plan["steps"] >= 1 and plan["estimated_seconds"] > 0
    assert not (tmp_path / "x").exists()


def test_resume_with_other_settings_is_refused(cloned, logs, capsys):
    words = [
        "train",
        "bc",
        "--logs",
        str(logs),
        "--out",
        str(cloned),
        *SMALL,
        "--grad-clip",
        "0.5",
        "--resume",
    ]
    assert main(words) == 2
    said = capsys.readouterr().err
    kept = "lr, schedule, warmup, checkpoint_every, checkpoints, log_every, heldout_every, epochs"
    assert "grad_clip was" in said and f"({kept} may change)" in said


@pytest.mark.parametrize("text, where", [
    ('{"messages": [}', "bad.jsonl:1:"),
    ('{"messages": [{"content": "x"}]}', "role"),
    ('{"messages": [{"role": "assistant"}]}', "content"),
    ('{"messages": [{"role": "robot", "content": "x"}]}', "robot"),
    ('{"messages": [{"role": "assistant", "content": "x", "reward": NaN}]}', "reward"),
    ('{"messages": [{"role": "user", "content": "x"}]}', "assistant"),
    ("", "empty"),
    ('{"messages": [{"role": "user", "content": "x", "reward": 1}, {"role": "assistant"}]}', "reward"),
    ('{"messages": [{"role": "assistant", "content": "x", "behavior_logp": 0.5}]}', "behavior_logp"),
])  # fmt: skip
def test_bad_logs_are_one_clear_line_and_nothing_is_written(text, where, tmp_path, capsys):
    bad, out = tmp_path / "bad.jsonl", tmp_path / "run"
    bad.write_text(text)
    assert main(["train", "bc", "--logs", str(bad), "--out", str(out)]) == 2
    error = capsys.readouterr().err.strip()
    assert len(error.splitlines()) == 1 and "bad.jsonl" in error and where in error
    assert not out.exists()


def test_a_folder_of_another_run_and_a_model_without_weights(cloned, logs, tmp_path, capsys):
    assert main(["train", "bc", "--logs", str(logs), "--out", str(cloned)]) == 2
    assert "holds another run" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "config.json").write_text("{}")
    words = [
        "train",
        "bc",
        "--logs",
        str(logs),
        "--out",
        str(tmp_path / "r"),
        "--model",
        str(tmp_path / "empty"),
    ]
    assert main(words) == 2
    assert "no weights" in capsys.readouterr().err
    assert not (tmp_path / "r").exists()


def test_a_log_that_is_not_text(tmp_path, capsys):
    (tmp_path / "bad.jsonl").write_bytes(b'{"messages": [{"role": "assistant", "content": "\xff\xfe"}]}\n')
    assert main(["data", "check", "--logs", str(tmp_path / "bad.jsonl")]) == 2
    assert "UTF-8" in capsys.readouterr().err


def test_long_conversations_are_chained_and_counted(tmp_path, capsys):
    """A conversation of far more tokens than the context trains; the card counts it."""
    messages = [m for _ in range(12) for m in ({"role": "user", "content": "tell me more about all of it"},
                {"role": "assistant", "content": "more and more of it", "reward": 1.0})]  # fmt: skip
    path = tmp_path / "long.jsonl"
    path.write_text("".join(json.dumps({"id": str(i), "messages": messages}) + "\n" for i in range(8)))
    words = ["train", "bc", "--logs", str(path), "--out", str(tmp_path / "bc"), *SMALL, "--heldout", "0"]
    words[words.index("--context") + 1] = "64"
    assert main([*words, "--json"]) == 0
    result = printed_json(capsys)
    assert result["rows"] > 8
    assert json.loads((tmp_path / "bc" / "card.json").read_text())["over_context"] == 8
    words = [
        "train",
        "ilql",
        "--logs",
        str(path),
        "--policy",
        str(tmp_path / "bc"),
        "--out",
        str(tmp_path / "q"),
    ]
    assert main([*words, "--epochs", "1", "--heldout", "0"]) == 0


def test_show_prints_decisions_and_discounts(logs, capsys):
    words = ["data", "show", "--logs", str(logs), "--gamma", "0.9", "--json"]
    assert main([*words, "--per", "turn"]) == 0
    turns = printed_json(capsys)["decisions"]
    assert main(words) == 0
    tokens = printed_json(capsys)["decisions"]
    assert sum(t["reward"] for t in turns) == pytest.approx(sum(t["reward"] for t in tokens))
    assert [t["discount"] for t in turns[:-1]] == pytest.approx([0.9] * (len(turns) - 1)) and turns[-1][
        "discount"
    ] == 0
    assert tokens[0]["discount"] == 1 and "".join(t["action"] for t in tokens).startswith(turns[0]["action"])


def test_the_demos_verbs_can_be_typed(tmp_path, capsys):
    """The dry run writes nothing. What improve takes is measured, and every policy that it chose from."""
    words = ["demo", "--out", str(tmp_path / "demo"), "--dry-run", "--json"]
    assert main(words) == 0
    verbs = [" ".join(v) for v in printed_json(capsys)["verbs"]]
    assert [v.split()[0] for v in verbs] == ["data", "data", "improve", *["evaluate"] * 5]
    measured = [Path(v.split()[2]).name for v in verbs if v.startswith("evaluate")]
    assert measured == ["better", "plan", "act-clone", "act-mc", "act-iql"]
    assert main([*words, "--preset", "all"]) == 0
    verbs = [" ".join(v) for v in printed_json(capsys)["verbs"]]
    assert "improve" in verbs[2] and "--preset all" in verbs[2]
    assert [Path(v.split()[2]).name for v in verbs[-3:]] == ["practice", "clone", "ilql"]
    assert not list(tmp_path.iterdir())


def test_the_demo_end_to_end(tmp_path, capsys, monkeypatch):
    """Tiny: a row for every policy, the optimum, what was said before, and the pages."""
    monkeypatch.setenv("TURNWISE_REHEARSAL", "1")
    home = tmp_path / "demo"
    words = ["demo", "--out", str(home), "--conversations", "80", "--episodes", "4", "--workers", "1"]
    assert main([*words, "--json"]) == 0
    found = printed_json(capsys)
    names = {r["name"].removeprefix("what improve takes: "): r["role"] for r in found["rows"]}
    learnt = ("plan in a learnt model", "Monte-Carlo values", "IQL")
    assert names.items() >= ({"clone": "baseline"} | dict.fromkeys(learnt, "method")).items()
    assert found["references"][0]["mean"] == pytest.approx(0.5675, abs=1e-4)
    assert "--episodes 4" in found["command"] and "--preset" not in found["command"]
    told = json.loads((home / "better" / "improve.json").read_text())
    verb = "Keep the agent" if told["choice"]["word"] == "keep" else told["choice"]["name"]
    assert verb in found["said"]["sentence"] and "<" not in found["said"]["sentence"]
    page = (home / "report.html").read_text()
    assert "0.5675" in page and "before anybody talked" in page
    for link in ("better/report.html", "better/plan/report.html"):
        assert f'href="{link}"' in page and (home / link).is_file()
    assert main([*words, "--resume", "--json"]) == 0  # nothing is done twice
    assert printed_json(capsys)["rows"] == found["rows"]
    assert main([*words[:3], "--conversations", "81", "--resume"]) == 2
    assert "conversations was 80 and is 81 now" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "t", "first", "others"),
    [
        ("plan", 1.0, {"what improve takes: plan": "runs/plan"}, ["IQL"]),  # a twin of it would say nothing
        ("plan", 0.4, {"what improve takes: plan": "better"}, ["plan", "IQL"]),
        ("IQL, beta 8", 1.0, {"what improve takes: IQL, beta 8": "better"}, ["plan", "IQL"]),
    ],
)
def test_no_policy_stands_twice_in_the_demo(name, t, first, others):
    policies = {title: Path("runs") / title for title in ("plan", "IQL")}
    found = with_taken(policies, Path("better"), {"name": name, "t": t})
    assert [(k, str(v)) for k, v in found.items()][:1] == list(first.items())
    assert list(found)[1:] == others


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train", "bc", "--batch-size", "0"], "--batch-size 0: expected 1 or more"),
        (["train", "bc", "--lr", "nan"], "--lr nan: expected a number above 0"),
        (["train", "bc", "--epochs", "0"], "--epochs 0.0: expected a number above 0"),
        (["train", "bc", "--heldout", "-0.1"], "--heldout -0.1: expected a number from 0 to below 1"),
        (["train", "bc", "--seed", "-1"], "--seed -1: expected a whole number from 0"),
        (["train", "ilql", "--policy", "p", "--tau", "1.5"], "--tau 1.5: expected a number between 0 and 1"),
        (["train", "ilql", "--policy", "p", "--top-k", "0"], "--top-k 0: expected 1 or more"),
        (["train", "turn-iql", "--policy", "p", "--proposals", "0"], "--proposals 0: expected 1 or more"),
        (["evaluate", "--run", "r", "--betas", "1", "inf"], "--betas inf: expected 0 or more"),
        (["evaluate", "--run", "r", "--proposals", "0"], "--proposals 0: expected 1 or more"),
        (
            ["evaluate", "--run", "nowhere"],
            "--run nowhere: expected the run folder of a trained",
        ),
        (["data", "make", "--out", "x.parquet"], "expected a name that ends in .jsonl or .jsonl.gz"),
        (["data", "check", "--logs", ""], "no name is given; expected a file"),
    ],
)
def test_what_a_flag_does_not_take(words: list[str], said: str, tmp_path, capsys, monkeypatch):
    """One line that says what was expected, exit code 2, nothing written."""
    monkeypatch.chdir(tmp_path)
    if words[0] == "train":
        words = [*words, "--logs", "logs.jsonl", "--out", "run"]
    assert main(words) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert said in line
    assert not list(tmp_path.iterdir())


def test_flags_of_a_fresh_model_beside_a_given_one_are_refused(cloned, logs, tmp_path, capsys):
    out = tmp_path / "never"
    words = ["train", "bc", "--logs", str(logs), "--out", str(out), "--model", str(cloned)]
    assert main([*words, "--width", "32"]) == 2
    assert "--width 32: expected no width beside model" in capsys.readouterr().err and not out.exists()


def test_a_policy_that_has_a_critic_is_refused(cloned, logs, tmp_path, capsys):
    first, second = tmp_path / "mc", tmp_path / "never"
    words = ["train", "mc", "--logs", str(logs), "--epochs", "0.1"]
    assert main([*words, "--policy", str(cloned), "--out", str(first)]) == 0
    assert main([*words, "--policy", str(first), "--out", str(second)]) == 2
    assert "this run has a critic already" in capsys.readouterr().err and not second.exists()
