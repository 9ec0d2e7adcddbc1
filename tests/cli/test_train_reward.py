"""`turnwise train reward` from a file to a model that others load."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from turnwise.cli import main
from turnwise.rollout.load import load_reward

SMALL = ["--width", "16", "--layers", "1", "--heads", "2", "--context", "32", "--vocab", "300"]
WORDS = ["sun", "rain", "wind", "snow", "fog"]


def pairs(folder: Path) -> Path:
    """What is said kindly wins; some of it is markup."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(60):
        say = [" ".join(rng.choice(WORDS, 3)) for _ in range(2)]
        rows.append({"prompt": f"Ask {i % 20}", "chosen": say[0] + " please", "rejected": say[1] + " <b>no"})
    path = folder / "pairs.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


def trained(out: Path, *words: str, capsys: Any) -> dict[str, Any]:
    assert main(["train", "reward", "--out", str(out), "--json", *words]) == 0
    return json.loads(capsys.readouterr().out)


def test_from_pairs_to_a_classifier(tmp_path: Path, capsys: Any) -> None:
    """Held-out prompts are kept apart, the rule is found, the page and the folder tell the same."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    file, out = pairs(tmp_path), tmp_path / "run"
    words = ["--feedback", str(file), *SMALL, "--heldout", "0.2", "--epochs", "6", "--batch-size", "8",
             "--lr", "1e-2", "--ensemble", "2", "--checkpoint-every", "10"]  # fmt: skip
    found = trained(out, *words, capsys=capsys)
    quality = found["quality"]
    assert found["learnt"] + found["held_out"] == 60 and found["held_out"] == 3 * quality["prompts"] > 0
    assert quality["accuracy"] > 0.9 and quality["members"] == 2
    page = (out / "report.html").read_text()
    assert f"{quality['accuracy']:.1%}" in page and "60 pairs" in page
    config = yaml.safe_load((out / "config.yaml").read_text())
    assert (config["algorithm"], config["ensemble"], config["centring"]) == ("reward", 2, 0.01)

    s = load_reward(out)
    model = AutoModelForSequenceClassification.from_pretrained(out / "reward").eval()
    tokenizer = AutoTokenizer.from_pretrained(out / "reward")
    chats = [[{"role": "user", "content": "Ask 1"}, {"role": "assistant", "content": t}]
             for t in ("sun please", "fog fog <b>no")]  # fmt: skip
    texts = tokenizer.apply_chat_template(chats, tokenize=False)
    read = tokenizer(texts, padding=True, return_tensors="pt", add_special_tokens=False)
    with torch.inference_mode():
        logits = model(**{k: read[k] for k in ("input_ids", "attention_mask")}).logits[:, 0]
    prompt = (s_message("Ask 1"),)
    ours = s.score([s.chat.reply(prompt, c[1]["content"]) for c in chats])
    np.testing.assert_allclose(ours.mean(0), logits, atol=1e-5)
    assert logits[0] > logits[1]

    before = {f.name: f.read_bytes() for f in (out / "reward").iterdir()}
    again = trained(out, *words, "--resume", capsys=capsys)
    assert again["quality"] == quality
    assert {f.name: f.read_bytes() for f in (out / "reward").iterdir()} == before


def s_message(text: str) -> Any:
    from turnwise.envs.dialogue import Message

    return Message("user", text)


def test_adapters_of_members_on_a_model_that_is_there(tmp_path: Path, capsys: Any) -> None:
    """A reward model's folder is a trunk as well; its two adapted members go to folders of their own."""
    from turnwise.models.lm.fresh import llama, train_tokenizer
    from turnwise.models.lm.pretrained import save_lm

    file = pairs(tmp_path)
    tokenizer = train_tokenizer(file.read_text().splitlines(), 300, 48)
    torch.manual_seed(0)
    size = len(tokenizer)
    save_lm(
        tmp_path / "lm",
        llama(size, width=16, layers=1, heads=2, context=48, eos=tokenizer.eos_token_id, pad=1),
        tokenizer,
    )
    words = ["--feedback", str(file), "--model", str(tmp_path / "lm"), "--lora-rank", "2", "--lr", "1e-2"]
    out = tmp_path / "run"
    found = trained(out, *words, "--ensemble", "2", "--apart", "trunks", "--heldout", "0", capsys=capsys)
    assert found["quality"] == {} and "nothing was held out" in (out / "report.html").read_text()
    assert sorted(p.name for p in (out / "reward").iterdir()) == ["member-0", "member-1", "turnwise.json"]
    s = load_reward(out)
    each = s.score([s.chat.reply((s_message("Ask 1"),), t) for t in ("sun please", "fog fog <b>no")])
    assert each.shape == (2, 2) and not np.allclose(each[0], each[1])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--lora-rank", "2"], "or a model to adapt as well: adapters of fresh weights would learn nothing"),
        (
            ["--model", "x", "--width", "32"],
            "--width 32: expected no width beside model x, which brings its own",
        ),
        (["--ensemble", "0"], "--ensemble 0: expected 1 or more"),
        (["--centring", "-1"], "--centring -1.0: expected 0 or more"),
        (["--context", "8", "--vocab", "300"], "fits the context of 8 tokens (the shortest, "),
        (["--heldout", "0.99999"], "expected a smaller share: nothing is left to learn from"),
    ],
)
def test_what_cannot_work_is_refused(words: list[str], said: str, tmp_path: Path, capsys: Any) -> None:
    file = pairs(tmp_path)
    assert main(["train", "reward", "--feedback", str(file), "--out", str(tmp_path / "run"), *words]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_scores_far_from_standard_are_told(tmp_path: Path, capsys: Any) -> None:
    """Of nine prompts, 3, 4 and 5 are held out; the 24 scores of the others have mean 72.9, deviation 2.1."""
    rows = [{"prompt": f"Ask {i % 9}", "completion": WORDS[i % 5], "score": 70 + i % 7} for i in range(36)]
    file = tmp_path / "scores.jsonl"
    file.write_text("".join(json.dumps(r) + "\n" for r in rows))
    words = ["train", "reward", "--feedback", str(file), "--out", str(tmp_path / "run"), *SMALL]
    assert main([*words, "--heldout", "0.3", "--epochs", "0.5"]) == 0
    said = capsys.readouterr()
    assert "scores have mean 72.9 and deviation 2.1; rewards begin at 0" in said.err
    assert "held-out RMSE 7" in said.out and "R2 -" in said.out
