"""What a decision is: a policy that writes, per act as a codebook reads it; and what is not possible."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import turnwise as tw
from turnwise.cli import main
from turnwise.data.acts.build import build_codes
from turnwise.data.rows import token_rows
from turnwise.data.splits.heldout import Split
from turnwise.models.lm.critics import TokenCritic, TurnCritic
from turnwise.models.lm.fresh import llama, train_tokenizer
from turnwise.models.lm.parts import trunk_of
from turnwise.recipes.estimating.estimators import jackknife
from turnwise.recipes.held_out import HeldOut
from turnwise.recipes.trained import Codebooks
from turnwise.rollout.acts.agent import ActAgent
from turnwise.rollout.acts.chooser import LoggedActs
from turnwise.rollout.acts.meant import STRANGER, histories_of, meant
from turnwise.rollout.acts.voice import LoggedVoice
from turnwise.rollout.agent import Acting, Agent
from turnwise.run.errors import InputError, SettingError

NOTHING = HeldOut(0.0, None, frozenset())
"""of what has learnt from nothing"""
QUICK: dict[str, Any] = {"quiet": True, "resamples": 50}


def rows_of(n: int) -> list[dict[str, Any]]:
    """One turn each: `a`, `b` or `c` and nothing else, evenly; they pay 0, 1 and 2."""
    found = []
    for i in range(n):
        act = "abc"[i % 3]
        said = {"role": "assistant", "content": act, "act": f"says {act}", "act_logp": float(-np.log(3))}
        messages = [{"role": "user", "content": "Go."}, said | {"reward": float(i % 3)}]
        found.append({"id": f"c{i}", "messages": messages})
    return found


ROWS = rows_of(60)


@pytest.fixture(scope="module")
def policy() -> tw.Policy:
    """Says one token of 260 or so."""
    tokenizer = train_tokenizer(["abc Go."], 270, 32)
    torch.manual_seed(0)
    lm = llama(len(tokenizer), width=16, layers=1, heads=2, context=32, eos=0, pad=1)
    return tw.Policy(Agent(lm.eval(), tokenizer, None, Acting(max_new_tokens=1)), held=NOTHING)


@pytest.fixture(scope="module")
def codes() -> Codebooks:
    return Codebooks(build_codes(tw.read_logs(ROWS, quiet=True)).codes, held=NOTHING)


def test_acts_of_a_policy_that_writes_are_counted_in_its_replies(policy: tw.Policy, codes: Codebooks) -> None:
    """Nearly all that random weights say was never logged. Importance sampling is the mean of share x 3 x
    reward, and what chance did to the shares, which all conversations have in common, is in its interval."""
    found = tw.estimate(policy, ROWS, acts=codes, samples=8, **QUICK)
    rows = histories_of(token_rows(list(tw.read_logs(ROWS, quiet=True)), policy.agent.chat, 32))
    shares = meant(policy.agent, codes.codes, list(tw.read_logs(ROWS, quiet=True)), rows, seed=0, samples=8)
    p, pay = shares.chances.probabilities[0, 0], np.arange(3.0)
    assert codes.codes.acts[:3] == ("says a", "says b", "says c")
    row = next(row for row in found["estimates"] if row["name"] == "is")
    assert found["per"] == "act" and row["value"] == pytest.approx(p[:3] @ pay, rel=1e-9)
    chance = jackknife([x[0, 0, :3] @ pay for x in shares.without])
    assert row["error"] > chance > 0
    worth, support = found["worth"], found["support"]
    assert worth["sure"] == "cannot tell" and any(STRANGER in why for why in worth["why"])
    assert support["coverage"] == pytest.approx(1 - p[-1]) and support["coverage_error"] == pytest.approx(
        jackknife([1 - x[0, 0, -1] for x in shares.without])
    )
    assert f"counted in {shares.replies:,} of its replies" in found["warnings"][0]
    assert "by the replies that were drawn" in "\n".join(found["lines"])
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize("kind", ["turns", "tokens"])
def test_one_of_several_proposals_is_counted_too(policy: tw.Policy, codes: Codebooks, kind: str) -> None:
    trunk, vocab = trunk_of(policy.agent.lm), policy.agent.lm.config.vocab_size
    critic = TurnCritic(trunk, 16) if kind == "turns" else TokenCritic(trunk, 16, vocab)
    agent = replace(policy.agent, critic=critic).with_acting(proposals=2, beta=1.0)
    several = replace(policy, agent=agent)
    found = tw.estimate(several, ROWS[:6], acts=codes, samples=2, **QUICK)
    assert found["per"] == "act"
    with pytest.raises(InputError, match=r"proposes 2 replies and says one of them.*expected acts"):
        tw.estimate(several, ROWS, **QUICK)
    with pytest.raises(InputError, match="expected acts"):
        tw.compare([several], ROWS, **QUICK)


def test_no_more_replies_than_are_allowed(policy: tw.Policy, codes: Codebooks, tmp_path: Path) -> None:
    found = tw.estimate(policy, ROWS, acts=codes, samples=4, replies=90, safe=tmp_path / "safe", **QUICK)
    assert found["safe"]["run"] is None and not (tmp_path / "safe").exists()
    assert found["conversations"] == 22 and found["learnt_from"]["unasked"] == 38
    assert "replies in 22 conversations, drawn at random: 38 more" in found["warnings"][0]


def test_codebooks_that_have_learnt_from_the_logs_leave_them_out(policy: tw.Policy, codes: Codebooks) -> None:
    logs = tw.read_logs(ROWS, quiet=True)
    learnt = replace(codes, held=HeldOut.after(0.5, None, Split(logs[:40], logs[40:])))
    found = tw.estimate(policy, logs, acts=learnt, samples=2, **QUICK)
    assert found["conversations"] == 20 and found["learnt_from"]["left_out"] == 40
    unknown = tw.estimate(policy, logs, acts=replace(codes, held=None), samples=2, **QUICK)
    assert unknown["learnt_from"]["unknown"] == ["the codebooks"]


def test_what_is_not_possible_says_what_is(policy: tw.Policy, codes: Codebooks) -> None:
    even = LoggedActs(np.full((1, 3), 1 / 3), np.full((2, 3), 1 / 3))
    of_acts = tw.ActPolicy(ActAgent(codes.codes, even, LoggedVoice.of(codes.codes.agent)), held=NOTHING)
    for given, settings, name, expected in (
        (policy, {"per": "act"}, "per", "turn or token .*or acts: the codebooks of a run of train acts"),
        (policy, {"per": "turn", "acts": codes}, "acts", "none where a decision is a turn"),
        (policy, {"acts": codes, "samples": 1}, "samples", "2 or more"),
        (policy, {"acts": codes, "way": "tilted"}, "way", "mixed"),
        (policy, {"per": "word"}, "per", "act, turn or token"),
        (of_acts, {"per": "turn"}, "per", "act: this policy chooses what to mean"),
        (of_acts, {"acts": codes}, "acts", "none: a policy of acts reads with codebooks of its own"),
    ):
        with pytest.raises(SettingError, match=expected) as error:
            tw.estimate(given, ROWS, **{**QUICK, **settings})
        assert error.value.name == name
    with pytest.raises(SettingError, match="none: policies of acts read"):
        tw.compare([of_acts], ROWS, acts=codes, **QUICK)
    with pytest.raises(InputError, match="nowhere: no codes"):
        tw.estimate(policy, ROWS, acts="nowhere", **QUICK)


def test_they_are_compared_on_the_same_conversations(policy: tw.Policy, codes: Codebooks) -> None:
    """A policy of acts beside one that writes: of both only as many conversations as the latter is asked."""
    even = LoggedActs(np.full((1, 3), 1 / 3), np.full((2, 3), 1 / 3))
    of_acts = tw.ActPolicy(ActAgent(codes.codes, even, LoggedVoice.of(codes.codes.agent)), held=NOTHING)
    policies = [replace(of_acts, folder=Path("even")), policy]
    found = tw.compare(policies, ROWS, acts=codes, samples=4, replies=90, **QUICK)
    assert found["conversations"] == 22 and found["warnings"][0].startswith("the policy replies in 22 ")
    rows = {row["name"]: row for row in found["rows"]}
    assert rows["even"]["gain"]["value"] == pytest.approx(0, abs=1e-9)  # it is the logged agent
    assert rows["a policy in memory"]["sure"] == "cannot tell"


def test_the_folder_of_any_language_model_from_the_command_line(
    policy: tw.Policy, codes: Codebooks, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """A GPT-2 with random weights, which is no run: it stays as it is, and has no page."""
    from transformers import GPT2Config, GPT2LMHeadModel

    tokenizer = policy.agent.tokenizer
    size = {"n_positions": 32, "n_embd": 8, "n_layer": 1, "n_head": 1, "vocab_size": len(tokenizer)}
    GPT2LMHeadModel(GPT2Config(**size, eos_token_id=0, bos_token_id=0)).save_pretrained(tmp_path / "gpt2")
    tokenizer.save_pretrained(tmp_path / "gpt2")
    codes.save(tmp_path / "codes")
    (tmp_path / "logs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS[:9]))
    before = sorted(path.name for path in (tmp_path / "gpt2").iterdir())
    words = ["evaluate", str(tmp_path / "gpt2"), "--logs", str(tmp_path / "logs.jsonl"), "--json"]
    words += ["--resamples", "20"]
    assert main([*words, "--acts", str(tmp_path / "codes"), "--samples", "2"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["per"], found["conversations"]) == ("act", 9) and "report" not in found
    assert main([*words, "--per", "turn", "--acts", str(tmp_path / "codes")]) == 2
    assert "--acts" in capsys.readouterr().err
    assert sorted(path.name for path in (tmp_path / "gpt2").iterdir()) == before
