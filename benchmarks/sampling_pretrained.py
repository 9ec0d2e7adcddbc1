"""Sampling from a pretrained model on a CPU: lanes beside `generate` of transformers, and a server of vLLM.

    python benchmarks/sampling_pretrained.py say --model models/smollm2 --json sampling_pretrained.json
    python benchmarks/sampling_pretrained.py say --model models/smollm2 --server URL --pid PID
    python benchmarks/sampling_pretrained.py read --model models/smollm2

`say`: each round has prompts of its own, which no cache knows, of one message of a user each. Every way reads
the same ones and says the same number of tokens at temperature 1: stop tokens do not stop. Lanes and the
server give log-probabilities, `generate` does not. Ways alternate in a round.

`read`: a lane reads a prompt of some thousand tokens and says nothing, beside the same pass of transformers,
whose attention is PyTorch's `scaled_dot_product_attention`.

`cpu` is the processor time of this process, or of the server's process (`--pid`) and of all that it has
started: the clock to compare by while others use the machine. The server (docs/how-to/engines.md) gets one
thread as this process does: OMP_NUM_THREADS=1, `--dtype float32`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
import urllib.request
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from turnwise.data.chat.format import ChatFormat
from turnwise.envs.dialogue import Message
from turnwise.envs.tasks.helpdesk.words import COMPLAINTS, CONFUSED_WORDINGS, pick
from turnwise.models.lm.lanes.memory import LaneMemory
from turnwise.models.lm.lanes.prepacked import prepacked_for
from turnwise.models.lm.parts import trunk_of
from turnwise.models.lm.policies import LmPolicy
from turnwise.models.lm.pretrained import load_lm
from turnwise.rollout.engines.sampler import Sampler

NEVER = -1
"""an id that no token has: nothing stops"""
Prompts = list[list[int]]
Way = Callable[[Prompts], None]


def prompts_of(chat: ChatFormat, number: int, sentences: int, seed: int) -> Prompts:
    """Ids of messages of so many sentences."""
    rng = np.random.default_rng(seed)
    options = [*COMPLAINTS, *CONFUSED_WORDINGS]
    texts = [f"{i}. " + " ".join(pick(options, rng) for _ in range(sentences)) for i in range(number)]
    return [list(chat.opening((Message("user", text),))) for text in texts]


def in_lanes(lm: Any, tokens: int, prompts: Prompts) -> None:
    """Our own."""
    room = max(map(len, prompts)) + tokens + 1
    sampler = Sampler(LmPolicy(lm), lanes=len(prompts), context=room, stop=NEVER, max_new_tokens=tokens)
    for lane, ids in enumerate(prompts):
        sampler.reset(lane, lane)
        sampler.submit(lane, ids)
    said = 0
    while said < len(prompts):
        said += sum(len(u.ids) == tokens for u in sampler.collect())


@torch.inference_mode()
def generated(lm: Any, tokens: int, prompts: Prompts) -> None:
    """All prompts in one batch, padded on the left."""
    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
    out = lm.generate(
        input_ids=ids,
        attention_mask=mask,
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        min_new_tokens=None,
        max_new_tokens=tokens,
        eos_token_id=None,
        pad_token_id=0,
    )
    assert out.shape == (len(prompts), longest + tokens)


def served(url: str, model: str, tokens: int, prompts: Prompts) -> None:
    """One request for all prompts."""
    asked = {
        "model": model,
        "prompt": prompts,
        "max_tokens": tokens,
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": -1,
        "ignore_eos": True,
        "logprobs": 0,
        "return_token_ids": True,
    }
    request = urllib.request.Request(
        f"{url}/v1/completions", json.dumps(asked).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as answer:
        found = json.load(answer)
    assert [len(c["token_ids"]) for c in found["choices"]] == [tokens] * len(prompts)


def processor_seconds(root: int | None) -> float:
    """Processor time of this process, or of `root` and all of its descendants."""
    if root is None:
        return time.process_time()
    fields = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended meanwhile
            continue
        fields[int(stat.parent.name)] = int(words[1]), int(words[11]) + int(words[12])
    family, ticks = {root}, 0
    while more := {pid for pid, (parent, _) in fields.items() if parent in family} - family:
        family |= more
    ticks = sum(fields[pid][1] for pid in family if pid in fields)
    return ticks / os.sysconf("SC_CLK_TCK")


def said(a: argparse.Namespace, lm: Any, chat: ChatFormat) -> dict[str, Any]:
    """Seconds of each way, round by round; a short round before them warms up."""
    ways: dict[str, tuple[Callable[..., None], int | None]] = {
        "lanes": (partial(in_lanes, lm), None),
        "generate": (partial(generated, lm), None),
    }
    if a.server:
        with urllib.request.urlopen(f"{a.server}/v1/models") as answer:
            model = json.load(answer)["data"][0]["id"]
        ways["vllm"] = (partial(served, a.server, model), a.pid)
    ways = {name: way for name, way in ways.items() if name in a.ways}
    for way, _ in ways.values():
        way(4, prompts_of(chat, 4, a.sentences, 10_000))
    taken: dict[str, dict[str, list[float]]] = {name: {"wall": [], "cpu": []} for name in ways}
    lengths = []
    for i in range(a.rounds):
        prompts = prompts_of(chat, a.lanes, a.sentences, i)
        lengths += map(len, prompts)
        for name, (way, pid) in ways.items():
            wall, cpu = time.perf_counter(), processor_seconds(pid)
            way(a.tokens, prompts)
            taken[name]["wall"].append(time.perf_counter() - wall)
            taken[name]["cpu"].append(processor_seconds(pid) - cpu)
    work = f"{a.lanes} prompts of {statistics.mean(lengths):.0f} tokens, {a.tokens} said"
    return {"work": work, **compared(taken, a.lanes * a.tokens)}


def read(a: argparse.Namespace, lm: Any) -> dict[str, Any]:
    """Seconds in which so many tokens are read, by lanes and by transformers."""
    trunk, rng = trunk_of(lm), np.random.default_rng(0)
    prompts = [rng.integers(0, lm.config.vocab_size, a.tokens).tolist() for _ in range(a.lanes)]

    @torch.inference_mode()
    def ours(products: Any, ids: Prompts) -> None:
        memory = LaneMemory(trunk, a.lanes, a.tokens + 1, products=products)
        memory.read(ids, np.arange(a.lanes), np.zeros(a.lanes, np.int64))

    @torch.inference_mode()
    def theirs(ids: Prompts) -> None:
        trunk(input_ids=torch.tensor(ids), use_cache=True)

    ways = {
        "lanes": partial(ours, prepacked_for(trunk)),
        "lanes, no copies": partial(ours, None),
        "transformers": theirs,
    }
    for way in ways.values():
        way([p[:8] for p in prompts])
    taken: dict[str, dict[str, list[float]]] = {name: {"wall": [], "cpu": []} for name in ways}
    for _ in range(a.rounds):
        for name, way in ways.items():
            wall, cpu = time.perf_counter(), processor_seconds(None)
            way(prompts)
            taken[name]["wall"].append(time.perf_counter() - wall)
            taken[name]["cpu"].append(processor_seconds(None) - cpu)
    return {"work": f"{a.lanes} x {a.tokens} tokens read", **compared(taken, a.lanes * a.tokens)}


def compared(taken: dict[str, dict[str, list[float]]], tokens: int) -> dict[str, Any]:
    """Tokens per second of each way, and how many times as fast as the others lanes are."""
    found: dict[str, Any] = {"seconds": taken}
    for clock in ("wall", "cpu"):
        speed = {name: [tokens / s for s in t[clock]] for name, t in taken.items()}
        medians = {name: statistics.median(s) for name, s in speed.items()}
        ratios = {
            name: {
                "ratio": medians["lanes"] / medians[name],
                "each": [ours / theirs for ours, theirs in zip(speed["lanes"], s, strict=True)],
            }
            for name, s in speed.items()
            if name != "lanes"
        }
        found[clock] = {"tokens_per_second": medians, "lanes_beside": ratios}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=["say", "read"])
    parser.add_argument("--model", required=True, help="folder of a causal language model")
    parser.add_argument("--lanes", type=int, help="32, or 1 to read")
    parser.add_argument("--tokens", type=int, help="48, or 2000 to read")
    parser.add_argument("--sentences", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ways", nargs="+", default=["lanes", "generate", "vllm"])
    parser.add_argument("--server", help="URL of a server of the same model")
    parser.add_argument("--pid", type=int, help="its process, on this machine")
    parser.add_argument("--json", type=Path, help="file to write")
    a = parser.parse_args()
    a.lanes = a.lanes or (32 if a.what == "say" else 1)
    a.tokens = a.tokens or (48 if a.what == "say" else 2000)
    torch.set_num_threads(1)
    load = os.getloadavg()
    lm, tokenizer = load_lm(a.model)
    lm.eval()
    found = said(a, lm, ChatFormat(tokenizer)) if a.what == "say" else read(a, lm)
    print(found["work"], f"(load {load[0]:.1f} to {os.getloadavg()[0]:.1f})")
    for clock in ("wall", "cpu"):
        for name, speed in found[clock]["tokens_per_second"].items():
            beside = found[clock]["lanes_beside"].get(name)
            text = ""
            if beside is not None:
                each = f"{min(beside['each']):.2f} to {max(beside['each']):.2f}"
                text = f"lanes are {beside['ratio']:.2f} times as fast ({each})"
            print(f"  {clock:4} {name:20} {speed:8,.1f} tokens/s  {text}")
    if a.json:
        machine = {"load": [load, os.getloadavg()], "cores": os.cpu_count(), "torch": torch.__version__}
        a.json.write_text(json.dumps({"machine": machine, **found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
