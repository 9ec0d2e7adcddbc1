"""An encoder-decoder through the doors: cloned, improved, judged, saved, spoken to; and what it cannot do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import turnwise as tw
from turnwise.cli import main
from turnwise.data.batch import pack_tokens
from turnwise.envs.tasks.helpdesk.logs import helpdesk_logs
from turnwise.losses.policy import action_logp
from turnwise.models.lm.fresh import train_tokenizer
from turnwise.models.lm.policies import LmPolicy
from turnwise.models.lm.pretrained import load_lm, save_lm
from turnwise.run.errors import InputError, SettingError

LOGS: Any = list(helpdesk_logs(8, 0))
PAIRS = [
    {"prompt": [{"role": "user", "content": f"Say {i}."}], "chosen": "the light is red", "rejected": "no"}
    for i in range(10)
]
PROMPTS = [{"prompt": row["prompt"]} for row in PAIRS]
QUIET: dict[str, Any] = {"quiet": True, "heldout": 0.3}
SAYS: dict[str, Any] = {"max_new_tokens": 4, "evaluation_replies": 1}
TALK = [{"role": "user", "content": "The light is off."}]


@pytest.fixture(scope="module")
def t5(tmp_path_factory: pytest.TempPathFactory, encoder_decoder: Callable[..., Any]) -> Path:
    folder = tmp_path_factory.mktemp("encoder-decoder") / "t5"
    tokenizer = train_tokenizer([m["content"] for log in LOGS for m in log["messages"]], 350, 192)
    ends = {"pad": tokenizer.pad_token_id, "eos": tokenizer.eos_token_id}
    save_lm(folder, encoder_decoder("t5", len(tokenizer), **ends).float(), tokenizer)
    return folder


@pytest.fixture(scope="module")
def clone(t5: Path) -> Path:
    out = t5.parent / "bc"
    tw.fit(tw.BC(epochs=1.0, batch_size=8), LOGS, out=out, model=str(t5), max_new_tokens=6, **QUIET)
    return out


def test_transformers_loads_what_was_cloned_and_gives_the_same_probabilities(clone: Path) -> None:
    """Of the turns of a logged conversation, each by `AutoModelForSeq2SeqLM` on its own history."""
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    theirs: Any = AutoModelForSeq2SeqLM.from_pretrained(clone / "policy").eval()
    agent: Any = tw.load(clone).agent  # pyright: ignore[reportAttributeAccessIssue]
    assert AutoTokenizer.from_pretrained(clone / "policy").get_vocab() == agent.tokenizer.get_vocab()
    (row,) = agent.chat.encode(list(tw.read_logs(LOGS[:1], quiet=True)))
    b = pack_tokens([row], gamma=1.0)
    ours = action_logp(LmPolicy(agent.lm)(b.inputs, b.decisions), b.actions)[0]
    said = np.flatnonzero(row.action)
    replies = np.split(said, np.flatnonzero(np.diff(said) > 1) + 1)
    assert len(replies) > 1
    at = 0
    for reply in replies:
        words = torch.as_tensor(row.ids[reply])
        labels = {"input_ids": torch.as_tensor(row.ids[: reply[0]])[None], "labels": words[None]}
        logp = action_logp(theirs(**labels).logits, words[None])[0]
        torch.testing.assert_close(ours[at : at + len(reply)], logp, rtol=0, atol=1e-5)
        at += len(reply)
    assert agent.reply(TALK, seed=1) == tw.load(clone / "policy").reply(TALK, seed=1)  # type: ignore


def test_it_is_evaluated_and_estimated(clone: Path, capsys: Any) -> None:
    found = tw.evaluate(clone, "helpdesk", episodes=3, quiet=True)
    assert found.episodes == 3 and np.isfinite(found.mean)
    words = ["--out", str(clone.parent / "never"), "--model", str(clone.parent / "t5"), "--dry-run", "--json"]
    file = clone.parent / "logs.jsonl"
    file.write_text("".join(json.dumps(log) + "\n" for log in LOGS))
    assert main(["train", "bc", "--logs", str(file), *words]) == 0
    assert json.loads(capsys.readouterr().out)["parameters"] > 1000
    assert not (clone.parent / "never").exists()
    assert np.isfinite(tw.estimate(clone, LOGS, quiet=True)["worth"]["now"]["value"])


@pytest.mark.parametrize("algorithm", [tw.DPO, tw.SimPO])
def test_it_learns_from_preferences(clone: Path, algorithm: Any) -> None:
    """The chosen reply gains on the rejected one, on the pairs that were learnt from."""
    made = tw.fit(algorithm(epochs=3, batch_size=5), PAIRS, policy=clone, **QUIET, **SAYS)
    after, before = made.agent, tw.load(clone).agent  # pyright: ignore[reportAttributeAccessIssue]

    def gap(agent: Any) -> float:
        prompt = tuple(tw.read_feedback(PAIRS, quiet=True)[0].prompt)
        rows = [agent.chat.reply(prompt, PAIRS[0][side]) for side in ("chosen", "rejected")]
        b = pack_tokens(rows, gamma=1.0)
        logp = action_logp(LmPolicy(agent.lm)(b.inputs, b.decisions), b.actions).where(b.mask, 0.0).sum(1)
        return float((logp[0] - logp[1]).detach())

    assert gap(after) > gap(before)


@pytest.fixture(scope="module")
def judge(t5: Path) -> Path:
    out = t5.parent / "judge"
    tw.fit(tw.RewardModel(epochs=4, batch_size=5), PAIRS, out=out, model=str(t5), ensemble=2, **QUIET)
    return out


def test_a_reward_model_is_saved_and_loaded(judge: Path) -> None:
    """The folder holds the base model, for `AutoModel`, and the heads beside it."""
    from transformers import AutoModel

    made: Any = tw.load(judge)
    feedback = tw.read_feedback(PAIRS, quiet=True)
    rows = [made.scorer.chat.reply(x.prompt, text) for x in feedback for text in (x.chosen, x.rejected)]
    score = made.scorer.score(rows)  # [E, 2 pairs]
    assert score.shape == (2, 20) and score[:, ::2].mean() > score[:, 1::2].mean()
    base: Any = AutoModel.from_pretrained(judge / "reward").eval()
    ids = rows[0].ids
    at = int(rows[0].action.argmax())
    read = torch.tensor([[base.config.decoder_start_token_id, *ids[at:]]])
    last = base(input_ids=torch.as_tensor(ids[None, :at]), decoder_input_ids=read).last_hidden_state[0, -1]
    heads = made.scorer.parts[0].heads.weight
    np.testing.assert_allclose((heads @ last).detach().numpy(), score[:, 0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("algorithm", [tw.RLOO, tw.TokenPPO, tw.OnlineDPO])
def test_it_learns_from_its_own_replies(clone: Path, judge: Path, algorithm: Any) -> None:
    c = algorithm(steps=2, prompts_per_step=4)
    made = tw.fit(c, PROMPTS, policy=clone, reward=str(judge), **QUIET, **SAYS)
    assert np.isfinite(made.result["metrics"]["reward"]) and np.isfinite(made.result["metrics"]["kl"])
    assert type(made.agent.lm).__name__ == "T5ForConditionalGeneration"


def test_what_it_cannot_is_said(clone: Path, t5: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="on which no values of tokens or turns"):
        tw.fit(tw.ILQL(epochs=1), LOGS, policy=clone, **QUIET)
    with pytest.raises(SettingError, match="its encoder reads what partners say"):
        tw.fit(tw.BC(epochs=1, partner_weight=0.5), LOGS, model=str(t5), **QUIET)
    folder = tmp_path / "unnamed"
    lm, tokenizer = load_lm(str(t5))
    save_lm(folder, lm, tokenizer)
    (folder / "generation_config.json").unlink()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if "start" not in k}))
    with pytest.raises(InputError, match="without decoder_start_token_id"):
        load_lm(str(folder))
