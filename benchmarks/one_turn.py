"""One turn beside TRL: a step of GRPO, RLOO and DPO with the same weights, settings and sizes, in one run.

    python benchmarks/one_turn.py                       all three, 5 steps each
    python benchmarks/one_turn.py --what grpo --steps 10 --json one_turn.json

A Llama of 3.3 million parameters (256 x 4, vocabulary 512), prompts of 64 tokens, replies of 64 (no reply may
stop early), groups of 8, 32 replies a step; float32, AdamW, one thread. GRPO has no KL term, RLOO one of .05
in its reward. DPO has 32 pairs, and both sides compute its reference. The two take turns step by step; a
ratio is of medians. The clock is wall time, with this process's CPU time beside it for busy machines.

TRL reads each prompt as often as it has replies, both when it samples and when it learns. It also computes
RLOO's log-probabilities of the sampling policy again. Here a group's prompt is read once, and the recorded
log-probabilities are used.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from torch import Tensor

from turnwise.algorithms.feedback import dpo
from turnwise.algorithms.replies import grpo, rloo
from turnwise.data.chat.format import ChatFormat
from turnwise.data.comparisons import Comparison
from turnwise.data.feedback import Pair
from turnwise.envs.dialogue import Message
from turnwise.models.lm.fresh import llama, train_tokenizer
from turnwise.models.lm.parts import lm_head_of, parameter_count
from turnwise.models.lm.policies import LmPolicy
from turnwise.models.lm.pretrained import save_lm
from turnwise.models.lm.reference import Reference
from turnwise.rollout.one_turn import OneTurn
from turnwise.run.learner import Learner
from turnwise.run.settings import AdamW

BARS = {"grpo": 1.5, "rloo": 1.8, "dpo": 1.2}
PROMPT = REPLY = 64
GROUP, ROWS, VOCAB = 8, 32, 512
LETTERS = "abcdefghijklmnopqrstuvwxyz"


class NeverStops(LmPolicy):
    """A policy whose replies all have full length, as TRL's have under min_new_tokens."""

    def __init__(self, lm: Any, stop: int):
        super().__init__(lm)
        self.stop = stop

    def logits(self, features: Any) -> Tensor:
        out = lm_head_of(self.lm)(features[0])
        out[:, self.stop] = -torch.inf
        return out


def world() -> tuple[Any, ChatFormat, list[str]]:
    """A tokenizer, its chat, and contents that make prompts of exactly 64 tokens."""
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list(LETTERS), 4)) for _ in range(60)]
    tokenizer = train_tokenizer([" ".join(rng.permutation(words)) for _ in range(200)], VOCAB, 256)
    chat = ChatFormat(tokenizer)
    contents = []
    while len(contents) < 256:
        picked = [words[i] for i in rng.integers(len(words), size=PROMPT)]
        while len(chat.opening([Message("user", " ".join(picked))])) > PROMPT:
            picked.pop()
        if len(chat.opening([Message("user", " ".join(picked))])) == PROMPT:
            contents.append(" ".join(picked))
    return tokenizer, chat, contents


def saved(lm: Any, tokenizer: Any, folder: str) -> str:
    """The folder of a saved model: TRL makes its reference by loading the model once more."""
    save_lm(Path(folder) / "model", lm, tokenizer)
    return str(Path(folder) / "model")


def fresh(tokenizer: Any, chat: ChatFormat) -> Any:
    torch.manual_seed(0)
    return llama(VOCAB, width=256, layers=4, heads=4, context=256, eos=chat.stop, pad=tokenizer.pad_token_id)


def settings(folder: str, steps: int) -> dict[str, Any]:
    """TRL's settings of everything but the algorithm."""
    return {
        "output_dir": folder,
        "per_device_train_batch_size": ROWS,
        "gradient_accumulation_steps": 1,
        "max_steps": steps,
        "learning_rate": 1e-4,
        "bf16": False,
        "model_init_kwargs": {"dtype": "float32"},
        "gradient_checkpointing": False,
        "use_cpu": True,
        "report_to": "none",
        "logging_strategy": "no",
        "save_strategy": "no",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }


def chat_rows(contents: list[str]) -> list[list[dict[str, str]]]:
    return [[{"role": "user", "content": c}] for c in contents]


def length_reward(completion_ids: Any, **_: Any) -> list[float]:
    return [float(sum(ids) % 97) / 97 for ids in completion_ids]


def trl_online(kind: str, folder: str, steps: int, lm: Any, tokenizer: Any, contents: list[str]) -> Any:
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

    config, trainer = (GRPOConfig, GRPOTrainer) if kind == "grpo" else (RLOOConfig, RLOOTrainer)
    return trainer(
        model=saved(lm, tokenizer, folder),
        reward_funcs=length_reward,
        args=config(
            **settings(folder, steps),
            num_generations=GROUP,
            max_completion_length=REPLY,
            beta=0.0 if kind == "grpo" else 0.05,
            temperature=1.0,
            generation_kwargs={"min_new_tokens": REPLY},
        ),
        train_dataset=Dataset.from_dict({"prompt": chat_rows(contents)}),
        processing_class=tokenizer,
    )


def own_online(kind: str, lm: Any, chat: ChatFormat, contents: list[str]) -> Callable[[int], object]:
    policy = NeverStops(lm, chat.stop)
    prompts = [(Message("user", c),) for c in contents]

    def judge(replies: Any) -> np.ndarray:
        return np.array(length_reward([r.tokens.ids[r.tokens.action].tolist() for r in replies]))

    talk = OneTurn(chat, prompts, judge, max_new_tokens=REPLY)
    reference = Reference(lm)
    learner = Learner(policy, AdamW(lr=1e-4))
    device = torch.device("cpu")

    def step(i: int) -> None:
        judged = talk.sample(policy, i, ROWS // GROUP, GROUP, 0)
        if kind == "grpo":
            c = grpo.Config(prompts_per_step=ROWS // GROUP, group=GROUP, beta=0.0)
            grpo.update(policy, learner, grpo.experience(None, judged, c, device), c, 0.0, 1e-4)
        else:
            r = rloo.Config(prompts_per_step=ROWS // GROUP, group=GROUP, beta=0.05)
            rloo.update(policy, learner, rloo.experience(reference, judged, r, 0.05, device), r, 1e-4)

    return step


def replies_of(chat: ChatFormat, contents: list[str]) -> list[str]:
    """Texts of exactly 64 tokens, the stop token included."""
    found = []
    for c in contents:
        words = c.split() + c.split()
        while len(chat.reply((Message("user", "x"),), " ".join(words)).decisions) > REPLY:
            words.pop()
        found.append(" ".join(words))
    return found


def trl_dpo(folder: str, steps: int, lm: Any, tokenizer: Any, contents: list[str], texts: list[str]) -> Any:
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    says = [[{"role": "assistant", "content": t}] for t in texts]
    rows = {"prompt": chat_rows(contents), "chosen": says, "rejected": says[1:] + says[:1]}
    return DPOTrainer(
        model=saved(lm, tokenizer, folder),
        args=DPOConfig(**settings(folder, steps), beta=0.1, max_length=256),
        train_dataset=Dataset.from_dict(rows),
        processing_class=tokenizer,
    )


def own_dpo(lm: Any, chat: ChatFormat, contents: list[str], texts: list[str]) -> Callable[[int], object]:
    policy, reference = LmPolicy(lm), Reference(lm)
    learner = Learner(policy, AdamW(lr=1e-4))
    items = [
        Comparison(Pair((), *pair), tuple(chat.reply((Message("user", c),), t) for t in pair))
        for c, *pair in zip(contents, texts, texts[1:] + texts[:1], strict=True)
    ]
    c = dpo.Config(batch_size=ROWS)

    def step(i: int) -> None:
        lm.train()
        chosen = [items[(i * ROWS + k) % len(items)] for k in range(ROWS)]
        objective, _ = dpo.loss(policy, reference, chosen, c)
        learner.descend(objective, lr=1e-4)

    return step


def measure(kind: str, steps: int) -> dict[str, Any]:
    """Seconds a step of both, taking turns; the first step of each warms up."""
    from transformers import TrainerCallback

    tokenizer, chat, contents = world()
    theirs, ours = fresh(tokenizer, chat), fresh(tokenizer, chat)
    texts = replies_of(chat, contents)
    own = own_dpo(ours, chat, contents, texts) if kind == "dpo" else own_online(kind, ours, chat, contents)
    taken: dict[str, list[tuple[float, float]]] = {"trl": [], "turnwise": []}

    class Turns(TrainerCallback):
        def __init__(self) -> None:
            self.began = (0.0, 0.0)

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.began = time.perf_counter(), time.process_time()

        def on_step_end(self, args: Any, state: Any, control: Any, **__: Any) -> None:
            wall, cpu = time.perf_counter(), time.process_time()
            taken["trl"].append((wall - self.began[0], cpu - self.began[1]))
            own(int(state.global_step))
            taken["turnwise"].append((time.perf_counter() - wall, time.process_time() - cpu))

    with tempfile.TemporaryDirectory() as folder:
        made = (
            trl_dpo(folder, steps + 1, theirs, tokenizer, contents, texts)
            if kind == "dpo"
            else (trl_online(kind, folder, steps + 1, theirs, tokenizer, contents))
        )
        made.add_callback(Turns())
        made.train()
    seconds = {who: times[1:] for who, times in taken.items()}
    medians = {who: [statistics.median(c) for c in zip(*x, strict=True)] for who, x in seconds.items()}
    each = [a[0] / b[0] for a, b in zip(seconds["trl"], seconds["turnwise"], strict=True)]
    return {
        "what": kind,
        "parameters": parameter_count(ours),
        "steps": steps,
        "trl_seconds": medians["trl"][0],
        "turnwise_seconds": medians["turnwise"][0],
        "samples_per_second": {who: ROWS / m[0] for who, m in medians.items()},
        "ratio": medians["trl"][0] / medians["turnwise"][0],
        "ratio_of_cpu": medians["trl"][1] / medians["turnwise"][1],
        "least": min(each),
        "most": max(each),
        "bar": BARS[kind],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--what", nargs="+", default=list(BARS), choices=list(BARS))
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--json", type=Path, help="file to write")
    a = parser.parse_args()
    torch.set_num_threads(1)
    found = []
    for kind in a.what:
        r = measure(kind, a.steps)
        found.append(r)
        print(
            f"{kind}: TRL {r['trl_seconds']:.2f} s, here {r['turnwise_seconds']:.2f} s a step; ratio "
            f"{r['ratio']:.2f} [{r['least']:.2f}, {r['most']:.2f}], of CPU time {r['ratio_of_cpu']:.2f} "
            f"(bar {r['bar']})",
            flush=True,
        )
    if a.json:
        a.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
