"""What a policy says before and after training is seen, measured, and judged by whoever is asked to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import turnwise as tw
from turnwise.cli import main
from turnwise.data.splits.heldout import is_held_out

TINY: dict[str, Any] = {"width": 16, "layers": 1, "heads": 2, "context": 48, "vocab": 300}
REPLIES: dict[str, Any] = {"max_new_tokens": 4, "evaluation_replies": 2}


def ask(i: int, earlier: int = 0) -> list[dict[str, str]]:
    """A question behind a system message and `earlier` exchanges of 13 tokens or more."""
    before = [
        {"role": "user", "content": "rain wind snow"},
        {"role": "assistant", "content": "snow wind rain"},
    ]
    system, user = {"role": "system", "content": "Be kind."}, {"role": "user", "content": f"Say {i}."}
    return [system, *before * earlier, user]


PAIRS = [
    {"prompt": ask(i, i % 4 * 2), "chosen": "rain", "rejected": "wind no", "answer": i} for i in range(40)
]


def letters(completions: Any, answer: Any, **_: Any) -> list[float]:
    return [float(len(c[0]["content"])) + 0 * a for c, a in zip(completions, answer, strict=True)]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clone") / "bc"
    logs = [
        {"messages": [*ask(i), {"role": "assistant", "content": "rain snow"}], "outcome": 1.0}
        for i in range(20)
    ]
    tw.fit(tw.BC(epochs=1), logs, out=folder, quiet=True, heldout=0.0, **TINY)
    return folder


def test_eight_replies_before_and_after_need_no_judge(clone: Path, tmp_path: Path, capsys: Any) -> None:
    """In result.json, on the page and in the terminal: the same held-out prompts and the same seed, the KL
    with its interval, the length and the share that was cut off. What was said before is what the clone says
    with that seed."""
    rows, out = tmp_path / "pairs.jsonl", tmp_path / "dpo"
    rows.write_text("".join(json.dumps(row) + "\n" for row in PAIRS))
    words = ["--policy", str(clone), "--feedback", str(rows), "--out", str(out), "--heldout", "0.5"]
    words += ["--max-new-tokens", "4", "--evaluation-replies", "2", "--lr", "0.01"]
    assert main(["train", "dpo", *words]) == 0
    said = capsys.readouterr()
    measured = json.loads((out / "result.json").read_text())["measured"]
    before, after = measured["before"], measured["after"]
    held = {row["prompt"][-1]["content"] for row in PAIRS if _held(row["prompt"])}
    asked = [e["prompt"] for e in before["examples"]]
    assert len(asked) == 8 and asked == [e["prompt"] for e in after["examples"]] and set(asked) <= held
    # Lanes sample with copies of the weights, whose products round otherwise.
    assert before["kl"] == pytest.approx({"mean": 0, "low": 0, "high": 0}, abs=1e-5) and "reward" not in after
    assert after["kl"]["low"] < after["kl"]["mean"] < after["kl"]["high"]
    assert 0 <= after["unfinished"]["low"] <= after["unfinished"]["high"] <= 1
    length, was = after["length"]["mean"], before["length"]["mean"]
    assert measured["gained"]["length"]["mean"] == pytest.approx(length - was)
    page = (out / "report.html").read_text()
    assert "What it says" in page and f"{length:.1f} tokens, and had {was:.1f} before" in page
    assert "No judge says whether they got better." in page and '<th scope="col">Cut at the limit' in page
    assert f"after: KL {after['kl']['mean']:.2f} (" in said.out and "nats a reply" in said.out
    assert said.out.count("prompt: ") == 8 == said.out.count("   before: ")
    shortened = json.loads((out / "card.json").read_text())["shortened"]
    assert (
        shortened
        and f"warning: {shortened} of 40 items are longer than the context of 48: the ear" in said.err
    )
    assert f"{shortened} of 40 items are longer than the context of 48" in page


def _held(prompt: list[dict[str, str]]) -> bool:
    from turnwise.data.files.feedback import prompt_of

    return is_held_out(prompt_of({"prompt": prompt}, "test"), 0.5)


def test_a_reward_measures_a_policy_that_learns_from_pairs_alone(clone: Path) -> None:
    """Letters of each reply, in their own units, and half of them taken off again by a second judge: 0.5
    letters in all. Columns of the feedback reach the function. Weights are what they are without a judge."""

    def halved(completions: Any, **_: Any) -> list[float]:
        return [float(len(c[0]["content"])) for c in completions]

    settings = {"policy": clone, "quiet": True, "heldout": 0.5, **REPLIES}
    judged = tw.fit(tw.DPO(), PAIRS, reward=[letters, (halved, -0.5)], **settings)
    measured = judged.result["measured"]
    for when in ("before", "after"):
        m = measured[when]
        by_letters, by_half = (m[k] for k in m if k.startswith("reward/"))
        assert by_letters == by_half and m["reward"]["mean"] == pytest.approx(by_letters["mean"] / 2)
        assert all(e["reward"] == len(e["reply"]) / 2 for e in m["examples"])
        assert m["reward"]["low"] <= m["reward"]["mean"] <= m["reward"]["high"]
    gained = measured["after"]["reward"]["mean"] - measured["before"]["reward"]["mean"]
    assert measured["gained"]["reward"]["mean"] == pytest.approx(gained)
    alone = tw.fit(tw.DPO(), PAIRS, **settings).result["measured"]["after"]
    assert alone["examples"] == [
        {k: v for k, v in e.items() if not k.startswith("reward")} for e in measured["after"]["examples"]
    ]


def test_a_reward_that_fails_is_found_before_training(clone: Path, tmp_path: Path) -> None:
    def wrong(**_: Any) -> list[float]:
        raise KeyError("nothing")

    with pytest.raises(tw.InputError, match="wrong failed with KeyError"):
        tw.fit(tw.KTO(), PAIRS, policy=clone, reward=wrong, out=tmp_path / "run", quiet=True, **REPLIES)
    with pytest.raises(tw.InputError, match="no prompt leaves room for 64 tokens in the context of 48"):
        tw.fit(tw.KTO(), PAIRS, policy=clone, reward=letters, out=tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_prompts_longer_than_the_context_lose_their_earliest_messages(
    clone: Path, tmp_path: Path, capsys: Any
) -> None:
    """A reward sees what the policy read: the system message and the last ones. Nothing is left out."""
    seen: list[Any] = []

    def longest(prompts: Any, completions: Any, **_: Any) -> list[float]:
        seen.extend(prompts)
        return [float(i) for i in range(len(completions))]

    rows = [{"prompt": row["prompt"]} for row in PAIRS]
    c = tw.RLOO(steps=1, prompts_per_step=40, group=2)
    found = tw.fit(c, rows, policy=clone, reward=longest, heldout=0.5, out=tmp_path / "rloo", **REPLIES)
    assert found.result["prompts"] + found.result["held_out"] == 40
    told = capsys.readouterr().err
    assert (
        "of 40 prompts lose their earliest messages, to leave room for 4 tokens in the context of 48" in told
    )
    assert {p[0]["content"] for p in seen} == {"Be kind."} and {len(p) for p in seen} == {2, 4, 6}
    assert all(p[-1]["content"].startswith("Say ") and p[1]["role"] == "user" for p in seen)


def test_a_judge_that_is_silent_on_every_other_reply_costs_no_training(clone: Path, tmp_path: Path) -> None:
    """Half of its replies to each prompt have no opinion: the figure is of the others, and the run ends."""

    def half(completions: Any, **_: Any) -> list[float | None]:
        return [None if i % 2 else 1.0 for i in range(len(completions))]

    settings = {"policy": clone, "heldout": 0.5, "max_new_tokens": 4, "evaluation_replies": 2}
    policy = tw.fit(tw.DPO(), PAIRS, reward=half, out=tmp_path / "run", quiet=True, **settings)
    after = policy.result["measured"]["after"]
    assert after["reward"]["mean"] == 1.0
    assert after["unjudged"] == after["replies"] // 2


def test_a_judge_that_is_silent_on_all_replies_has_no_figure(clone: Path, tmp_path: Path) -> None:
    settings = {"policy": clone, "heldout": 0.5, "max_new_tokens": 4, "evaluation_replies": 2}
    calls = []

    def silent(completions: Any, **_: Any) -> list[float | None]:
        calls.append(len(completions))
        return [1.0 if len(calls) == 1 else None] * len(completions)  # it judges only when it is tried

    policy = tw.fit(tw.DPO(), PAIRS, reward=silent, out=tmp_path / "run", quiet=True, **settings)
    after = policy.result["measured"]["after"]
    assert "reward" not in after and after["unjudged"] == after["replies"]
