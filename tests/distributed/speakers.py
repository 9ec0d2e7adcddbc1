"""Small training runs of every algorithm that learns from feedback or from its own replies, for `worker.py`.

Run as it stands by whoever needs it: `train` and `ALGORITHMS` are all that is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from turnwise.algorithms.feedback import dpo, kto, orpo, reward, simpo
from turnwise.algorithms.replies import best_of_n, grpo, online_dpo, reply_reinforce, rloo, token_ppo
from turnwise.data.chat.format import ChatFormat
from turnwise.data.comparisons import comparison_rows, reply_rows
from turnwise.data.feedback import Like, Pair
from turnwise.envs.dialogue import Message
from turnwise.models.lm.fresh import llama, train_tokenizer
from turnwise.models.lm.lora import with_lora
from turnwise.models.lm.parts import trunk_of
from turnwise.models.lm.policies import LmPolicy
from turnwise.models.lm.reward_model import RewardModel
from turnwise.rollout.one_turn import OneTurn
from turnwise.rollout.replies import Reply
from turnwise.run import distributed
from turnwise.run.errors import InputError, Interrupted
from turnwise.run.settings import AdamW
from turnwise.run.training import TrainingRun

WIDTH = 16
TEXTS = ["hello there, my friend", "it works now", "say it again", "no, thank you"]
PROMPTS = [(Message("user", text[: 4 + 3 * i]),) for i, text in enumerate(TEXTS * 2)]
OPTIMIZER = AdamW(lr=3e-3, warmup=0.4, weight_decay=0.01)
FEEDBACK = {"dpo": dpo, "kto": kto, "simpo": simpo, "orpo": orpo, "reward": reward}
REPLIES: dict[str, Any] = {
    "rloo": (rloo, rloo.Config(steps=10, prompts_per_step=5, group=2, minibatches=2, optimizer=OPTIMIZER)),
    "grpo": (grpo, grpo.Config(steps=10, prompts_per_step=5, group=2, minibatches=2, beta=0.1, kl_target=1.0,
                               length="reply", optimizer=OPTIMIZER)),
    "token-ppo": (token_ppo, token_ppo.Config(steps=10, prompts_per_step=7, kl_target=0.5,
                                              optimizer=OPTIMIZER)),
    "online-dpo": (online_dpo, online_dpo.Config(steps=10, prompts_per_step=3, optimizer=OPTIMIZER)),
    "best-of-n": (best_of_n, best_of_n.Config(steps=10, prompts_per_step=3, group=3, optimizer=OPTIMIZER)),
    "reply-reinforce": (reply_reinforce, reply_reinforce.Config(
        steps=10, prompts_per_step=5, baseline="batch", optimizer=OPTIMIZER)),
}  # fmt: skip
ALGORITHMS = (*FEEDBACK, *REPLIES)


def chat() -> ChatFormat:
    return ChatFormat(train_tokenizer(TEXTS, 280, 64))


def model(algorithm: str, kind: str, vocab: int, pad: int, stop: int, lora: int) -> Any:
    """What learns: the same weights every time."""
    torch.manual_seed(3)
    if kind == "t5":
        from transformers import T5Config, T5ForConditionalGeneration

        size: dict[str, Any] = {"d_model": WIDTH, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}
        ends = {"pad_token_id": pad, "eos_token_id": stop, "decoder_start_token_id": pad}
        lm: Any = T5ForConditionalGeneration(T5Config(vocab_size=vocab, dropout_rate=0.0, **size, **ends))
    else:
        lm = llama(vocab, width=WIDTH, layers=2, heads=2, context=64, eos=stop, pad=pad)
    lm = with_exact_norms_(lm.double())
    if lora:
        lm = with_lora(lm, lora)
    if algorithm == "reward":
        return RewardModel(trunk_of(lm), WIDTH, ensemble=2).double()
    return LmPolicy(lm)


def fresh(algorithm: str) -> Any:
    """What learns, before it has."""
    c = chat()
    return model(algorithm, "llama", len(c.tokenizer), c.tokenizer.pad_token_id, c.stop, 0)


def with_exact_norms_(lm: Any) -> Any:
    """Norms of `transformers` take their mean squares in float32, whatever they are given."""
    for parent in list(lm.modules()):
        for name, norm in list(parent.named_children()):
            if type(norm).__name__ in ("LlamaRMSNorm", "T5LayerNorm"):
                exact = nn.RMSNorm(len(norm.weight), eps=norm.variance_epsilon, dtype=torch.float64)
                exact.weight = norm.weight
                setattr(parent, name, exact)
    return lm


def judged(replies: Sequence[Reply]) -> np.ndarray:
    """The share of even ids; of every seventh reply it has no opinion."""
    ids = [r.tokens.ids[r.tokens.action] for r in replies]
    return np.array([np.nan if sum(x) % 7 == 0 else float((x % 2 == 0).mean()) for x in ids])


def items(algorithm: str, c: ChatFormat) -> list[Any]:
    """23 judgements: batches of 5, the last of them of 3, or of 1 for two processes' sake."""
    rng = np.random.default_rng(5)
    said = [" ".join(rng.choice(["hello", "it", "works", "no"], rng.integers(1, 5))) for _ in range(42)]
    if algorithm == "kto":
        likes = [Like(PROMPTS[i % 8], said[i], liked=i % 3 > 0, id=str(i)) for i in range(21)]
        return list(reply_rows(likes, c, 64))
    pairs = [Pair(PROMPTS[i % 8], said[i], said[i + 21], tie=i % 6 == 0, id=str(i)) for i in range(21)]
    return list(comparison_rows(pairs, c, 64))


def train(
    algorithm: str,
    folder: Path | str,
    world: distributed.World,
    *,
    kind: str = "llama",
    lora: int = 0,
    stop_at: int | None = None,
    micro: int | None = None,
) -> str:
    """Train in `folder`, from its checkpoint if it has one; "ended", "interrupted", or why it was refused."""
    from turnwise.run.passes import Passes

    c = chat()
    module = model(algorithm, kind, len(c.tokenizer), c.tokenizer.pad_token_id, c.stop, lora)
    own = Path(folder) if world.main else Path(f"{folder}-of-rank-{world.rank}")
    run = TrainingRun(own, world, log_every=1, checkpoint_every=10, quiet=True, through=Passes(rows=micro))
    if stop_at is not None:
        interrupt_after(run, stop_at, world)
    try:
        if algorithm in REPLIES:
            story, config = REPLIES[algorithm]
            talk = OneTurn(c, PROMPTS, judged, max_new_tokens=5)
            story.train(config, talk, module, run, 11)
        else:
            story = FEEDBACK[algorithm]
            config = story.Config(epochs=2.0, batch_size=5, optimizer=OPTIMIZER)
            rows = items(algorithm, c)
            story.train(config, rows, rows[:7], module, run, 11)
    except Interrupted:
        return "interrupted"
    except InputError as e:
        return str(e)
    plain = model(algorithm, kind, len(c.tokenizer), c.tokenizer.pad_token_id, c.stop, lora)
    distributed.copy_whole(module, plain)
    if world.main:
        torch.save(plain.state_dict(), f"{folder}.weights")
    return "ended"


def interrupt_after(run: TrainingRun, step: int, world: distributed.World) -> None:
    """Press Ctrl-C in the last process while it logs a step."""
    import os
    import signal

    log = run.log

    def pressing(at: int, metrics: Any) -> None:
        log(at, metrics)
        if at == step and world.rank == world.size - 1:
            os.kill(os.getpid(), signal.SIGINT)

    run.log = pressing  # type: ignore[method-assign]
