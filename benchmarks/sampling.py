"""Sampling throughput: lanes that keep their cache, against `transformers` `generate` called turn by turn.

    python benchmarks/sampling.py --json sampling.json

Both hold the same conversations through the same lane loop, with the same weights, at temperature 1 and with
64 conversations at a time. Tokens that the agent sampled per second are counted. Utterances have realistic
lengths because the policy is first cloned for a moment from scripted conversations.

The peer reads the whole history again at each turn, in a left-padded batch. It stops when all rows have their
stop token; what finished rows are padded with is not counted. It comes in two variants, and the ratio is to
the better of them: `refill` puts a new conversation in the place of one that ended, `leave` lets the batch
shrink until all of its conversations have ended. It records no log-probabilities; lanes do.

Ways alternate within a repeat. Wall time is what a user waits for; on a machine that others use too, the CPU
time of this process is the steadier clock (with one thread the two agree when nobody else is there).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from turnwise.algorithms.logs import bc
from turnwise.data.batch import pack_tokens
from turnwise.data.chat.format import ChatFormat
from turnwise.data.dialogue import Dialogue
from turnwise.data.order import BatchOrder
from turnwise.envs.dialogue import DialogueTask, Message, Response
from turnwise.envs.tasks.helpdesk.logs import helpdesk_logs
from turnwise.envs.tasks.helpdesk.rules import ACTS
from turnwise.envs.tasks.helpdesk.task import HelpDesk
from turnwise.envs.tasks.helpdesk.words import COMPLAINTS, CONFUSED_WORDINGS, GREETINGS, pick, wordings
from turnwise.models.lm.fresh import llama, train_tokenizer
from turnwise.models.lm.parts import parameter_count
from turnwise.models.lm.policies import LmPolicy
from turnwise.models.lm.pretrained import load_lm, save_lm
from turnwise.rollout.conversations import converse
from turnwise.rollout.engines.protocol import LaneModel, Utterance
from turnwise.rollout.engines.sampler import Sampler
from turnwise.run.learner import Learner
from turnwise.run.optim import warmed_up
from turnwise.run.settings import AdamW

BAR = 3.0
SIZES = {"1M": (128, 4), "3M": (256, 4)}  # width, layers: 0.9 and 3.4 million parameters
HEADS, VOCAB, CONTEXT, LONGEST = 4, 1024, 768, 96


class LongTalk:
    """A partner who says two to four sentences whatever he hears, for five to eight turns."""

    def __init__(self) -> None:
        self._lanes: dict[int, tuple[np.random.Generator, int]] = {}

    def reset(self, lanes: Sequence[int], seeds: Sequence[int]) -> list[tuple[Message, ...]]:
        openings = []
        for lane, seed in zip(lanes, seeds, strict=True):
            rng = np.random.default_rng(seed)
            self._lanes[lane] = rng, int(rng.integers(5, 9))
            openings.append((Message("user", f"{pick(GREETINGS, rng)} {pick(COMPLAINTS, rng)}"),))
        return openings

    def step(self, lanes: Sequence[int], replies: Sequence[str]) -> list[Response]:
        answers = []
        for lane in lanes:
            rng, left = self._lanes[lane]
            self._lanes[lane] = rng, left - 1
            said = (Message("user", sentences([*COMPLAINTS, *CONFUSED_WORDINGS], rng)),)
            answers.append(Response(said, 0.0, terminated=left == 1))
        return answers

    def hidden(self, lane: int) -> Mapping[str, Any]:
        return {}


def sentences(options: Sequence[str], rng: np.random.Generator) -> str:
    """Two to four of them."""
    return " ".join(pick(options, rng) for _ in range(rng.integers(2, 5)))


def long_logs(conversations: int, seed: int) -> list[Dialogue]:
    """An agent that talks with `LongTalk` and says two to four sentences itself."""
    task, said = LongTalk(), [text for act in ACTS for text in wordings(act)]
    rngs = [np.random.default_rng((seed, i)) for i in range(conversations)]
    talks: list[list[Message]] = [list(x) for x in task.reset(range(conversations), range(conversations))]
    going = list(range(conversations))
    while going:
        for i in going:
            talks[i].append(Message("assistant", sentences(said, rngs[i])))
        responses = task.step(going, [""] * len(going))
        for i, response in zip(going, responses, strict=True):
            talks[i] += response.messages
        going = [i for i, response in zip(going, responses, strict=True) if not response.terminated]
    return [Dialogue(tuple(messages)) for messages in talks]


def short_logs(conversations: int, seed: int) -> list[Dialogue]:
    """The desk that acts by whim, at HelpDesk."""
    return [
        Dialogue(tuple(Message(m["role"], m["content"]) for m in log["messages"]))
        for log in helpdesk_logs(conversations, seed)
    ]


@dataclass(frozen=True)
class Workload:
    """A partner, logs to clone from, and how many conversations a measurement holds."""

    task: Callable[[], DialogueTask]
    logs: Callable[[int, int], list[Dialogue]]
    episodes: int
    train_rows: int


WORKLOADS = {
    "helpdesk": Workload(HelpDesk, short_logs, episodes=256, train_rows=2400),
    "long": Workload(LongTalk, long_logs, episodes=128, train_rows=480),
}


def cloned(size: str, workload: Workload, folder: Path | None) -> tuple[Any, Any]:
    """A model whose utterances have the lengths of the logs; kept in `folder` if there is one."""
    if folder is not None and (folder / "config.json").exists():
        return load_lm(str(folder))
    dialogues = workload.logs(workload.train_rows, 1)
    texts = [m.content for d in dialogues for m in d.messages]
    tokenizer = train_tokenizer(texts, VOCAB, CONTEXT)
    torch.manual_seed(0)
    width, layers = SIZES[size]
    lm = llama(
        len(tokenizer),
        width=width,
        layers=layers,
        heads=HEADS,
        context=CONTEXT,
        eos=tokenizer.eos_token_id,
        pad=tokenizer.pad_token_id,
    )
    rows = ChatFormat(tokenizer).encode(dialogues)
    objective = bc.Objective(LmPolicy(lm))
    c = bc.Config(batch_size=16, optimizer=AdamW(lr=2e-3, warmup=0.05, weight_decay=0.01))
    learner = Learner(objective, c.optimizer)
    order = BatchOrder([len(t) for t in rows], c.batch_size, 0)
    total = len(rows) // c.batch_size
    denominator = sum(len(t.decisions) for t in rows) / total
    for step in range(total):
        batch = pack_tokens([rows[i] for i in order.rows(step)], gamma=1.0)
        bc.update(learner, [batch], denominator, c, warmed_up(c.optimizer, step, total))
    if folder is not None:
        save_lm(folder, lm, tokenizer)
    return lm, tokenizer


@dataclass
class TurnByTurn:
    """`generate` as a `LaneModel`: remembers ids only, and reads them all again at each turn."""

    lm: Any
    stop: int
    pad: int
    history: dict[int, list[int]] = field(default_factory=dict)
    waiting: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        from transformers import GenerationConfig

        self.how = GenerationConfig(
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            max_new_tokens=LONGEST,
            eos_token_id=self.stop,
            pad_token_id=self.pad,
        )

    def reset(self, lane: int, seed: int) -> None:
        self.history[lane] = []

    def submit(self, lane: int, ids: Sequence[int]) -> None:
        self.history[lane] += ids
        self.waiting.append(lane)

    @torch.inference_mode()
    def collect(self) -> list[Utterance]:
        histories = [self.history[lane] for lane in self.waiting]
        longest = max(map(len, histories))
        ids = torch.full((len(histories), longest), self.pad)
        mask = torch.zeros_like(ids)
        for row, history in enumerate(histories):
            ids[row, longest - len(history) :] = torch.tensor(history)
            mask[row, longest - len(history) :] = 1
        sampled = self.lm.generate(input_ids=ids, attention_mask=mask, generation_config=self.how)
        said = []
        for lane, new in zip(self.waiting, sampled[:, longest:].tolist(), strict=True):
            stopped = self.stop in new
            new = new[: new.index(self.stop) + 1] if stopped else new
            self.history[lane] += new if stopped else [*new, self.stop]
            said.append(Utterance(lane, tuple(new), (0.0,) * len(new), stopped, out_of_context=False))
        self.waiting = []
        return said


@dataclass(frozen=True)
class Timing:
    """One measurement: agent tokens sampled, seconds of wall and of this process's CPU."""

    tokens: int
    wall: float
    cpu: float
    turns: int
    conversations: int


def hold(model: LaneModel, w: Workload, chat: ChatFormat, lanes: int, seed: int, at_once: int) -> Timing:
    """Hold the workload's conversations, `at_once` of them per call of the lane loop."""
    wall, cpu = time.perf_counter(), time.process_time()
    held = []
    for first in range(0, w.episodes, at_once):
        episodes = range(first, min(first + at_once, w.episodes))
        held += converse(model, w.task(), chat, episodes=episodes, seed=seed, lanes=lanes)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    tokens = sum(int(c.tokens.action.sum()) for c in held)
    return Timing(tokens, wall, cpu, sum(len(c.dialogue.turns) for c in held), len(held))


def measure(size: str, name: str, lanes: int, repeats: int, folder: Path | None) -> dict[str, Any]:
    """Timings of our lanes and both variants of the peer, alternating."""
    w = WORKLOADS[name]
    lm, tokenizer = cloned(size, w, folder and folder / f"{name}-{size}")
    lm.eval()
    chat = ChatFormat(tokenizer)

    def ours() -> LaneModel:
        return Sampler(LmPolicy(lm), lanes=lanes, context=CONTEXT, stop=chat.stop, max_new_tokens=LONGEST)

    def peer() -> LaneModel:
        return TurnByTurn(lm, chat.stop, tokenizer.pad_token_id)

    ways = {"lanes": (ours, w.episodes), "refill": (peer, w.episodes), "leave": (peer, lanes)}
    timings: dict[str, list[Timing]] = {way: [] for way in ways}
    for make, _ in ways.values():  # first calls pay for lazy imports and allocations
        converse(make(), w.task(), chat, episodes=range(8), seed=99, lanes=8)
    for repeat in range(repeats):
        torch.manual_seed(repeat)
        for way, (make, at_once) in ways.items():
            timings[way].append(hold(make(), w, chat, lanes, repeat, at_once))
    return {
        "workload": name,
        "size": size,
        "parameters": parameter_count(lm),
        **talk_of(timings["lanes"]),
        **{clock: compared(timings, clock) for clock in ("wall", "cpu")},
    }


def talk_of(timings: Sequence[Timing]) -> dict[str, float]:
    """What a conversation of the workload looks like."""
    turns = sum(t.turns for t in timings)
    return {
        "tokens_per_turn": sum(t.tokens for t in timings) / turns,
        "turns": turns / sum(t.conversations for t in timings),
    }


def compared(timings: Mapping[str, Sequence[Timing]], clock: str) -> dict[str, Any]:
    """Tokens per second of each way, and the ratio of medians of ours to the better peer's."""
    speed = {way: [t.tokens / getattr(t, clock) for t in ts] for way, ts in timings.items()}
    medians = {way: statistics.median(s) for way, s in speed.items()}
    best = max(("refill", "leave"), key=medians.__getitem__)
    ratios = [ours / peer for ours, peer in zip(speed["lanes"], speed[best], strict=True)]
    return {
        "tokens_per_second": speed,
        "medians": medians,
        "peer": best,
        "ratio": medians["lanes"] / medians[best],
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--workloads", nargs="+", default=list(WORKLOADS), choices=list(WORKLOADS))
    parser.add_argument("--lanes", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--models", type=Path, help="folder that keeps the cloned models for another run")
    parser.add_argument("--json", type=Path, help="file to write")
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    rows = []
    print(f"agent tokens/s, {a.lanes} lanes, {a.threads} thread(s), medians of {a.repeats} [min, max]")
    for name in a.workloads:
        for size in a.sizes:
            row = measure(size, name, a.lanes, a.repeats, a.models)
            rows.append(row)
            print(
                f"{name} {size}: {row['parameters']:,} parameters, {row['turns']:.1f} turns of "
                f"{row['tokens_per_turn']:.1f} tokens"
            )
            for clock in ("wall", "cpu"):
                r = row[clock]
                speeds = "  ".join(f"{way} {m:7,.0f}" for way, m in r["medians"].items())
                print(
                    f"  {clock:4}  {speeds}  lanes / {r['peer']} = {r['ratio']:.2f} "
                    f"[{r['ratio_min']:.2f}, {r['ratio_max']:.2f}]  bar {BAR:g}: "
                    f"{'met' if r['ratio'] >= BAR else 'NOT met'}",
                    flush=True,
                )
    if a.json is not None:
        machine = {"threads": a.threads, "cores": os.cpu_count(), "torch": torch.__version__}
        found = {"bar": BAR, "lanes": a.lanes, "machine": machine, "rows": rows}
        a.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
