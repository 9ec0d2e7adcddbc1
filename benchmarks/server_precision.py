"""How far log-probabilities of a server, of lanes and of a training pass are from exact ones: in float64.

    python benchmarks/server_precision.py --model models/smollm2 --server URL --folder served

The server (docs/how-to/engines.md) says some replies; everything else scores the same tokens. Then weights
are moved by normal numbers of deviation .002, the server loads them from `--folder`, and all is done again.
Differences are in nats, over the tokens said.

    server             what the server gave
    one pass           the policy's own, as in training
    lanes              as they are sampled here, token by token, from copies of the weights
    lanes, no copies   the same from the weights where they are
"""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from turnwise.data.chat.format import ChatFormat
from turnwise.data.tokens import Tokens
from turnwise.envs.dialogue import Message
from turnwise.models.lm.lanes.memory import LaneMemory
from turnwise.models.lm.lanes.prepacked import Prepacked
from turnwise.models.lm.parts import trunk_of
from turnwise.models.lm.policies import LmPolicy
from turnwise.models.lm.pretrained import load_lm
from turnwise.rollout.engines.servers.engine import open_engine
from turnwise.rollout.engines.servers.handshake import own_logp
from turnwise.rollout.replies import sample_replies

ASKED = ("Write a short greeting.", "Name three fruits.", "What is the capital of France?", "Tell me a joke.")
PROMPTS = [(Message("user", text),) for text in ASKED]


@torch.inference_mode()
def in_lanes(policy: LmPolicy, rows: Sequence[Tokens], products: Prepacked) -> np.ndarray:
    """Log-probability of each token said, [n]: the prompt is read at once, and then a token at a time."""
    memory = LaneMemory(trunk_of(policy.lm), 1, max(map(len, rows)), products=products)
    found = []
    for row in rows:
        ids, at = row.ids.tolist(), 0
        for place in np.flatnonzero(row.action).tolist():
            features = memory.read([ids[at:place]], np.zeros(1, np.int64), np.array([at]))
            at = place
            with products:
                logits = policy.logits([features])
            found.append(float(logits.double().log_softmax(-1)[0, ids[place]]))
    return np.array(found)


def compared(policy: LmPolicy, chat: ChatFormat, engine: Any, group: int, tokens: int) -> dict[str, Any]:
    """Differences of each side from float64, and from the server."""
    said = sample_replies(policy, chat, PROMPTS, group=group, seed=0, max_new_tokens=tokens, engine=engine)
    rows = [reply.tokens for reply in said]
    exact = np.concatenate(own_logp(LmPolicy(copy.deepcopy(policy.lm).double()), rows, group))
    server = np.concatenate([row.token_logp[row.action] for row in rows]).astype(float)
    sides = {
        "server": server,
        "one pass": np.concatenate(own_logp(policy, rows, group)),
        "lanes": in_lanes(policy, rows, Prepacked(2**31)),
        "lanes, no copies": in_lanes(policy, rows, Prepacked(0)),
    }
    found: dict[str, Any] = {"tokens": len(exact)}
    for name, logp in sides.items():
        from_exact, from_server = abs(logp - exact), abs(logp - server)
        found[name] = {
            "from_float64": {"mean": from_exact.mean(), "max": from_exact.max()},
            "from_server": {"mean": from_server.mean(), "max": from_server.max()},
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", required=True, help="folder of a causal language model")
    parser.add_argument("--server", required=True, help="URL of a server of the same model")
    parser.add_argument("--folder", type=Path, required=True, help="where the server finds weights")
    parser.add_argument("--group", type=int, default=4, help="replies to each of the four prompts")
    parser.add_argument("--tokens", type=int, default=20)
    parser.add_argument("--json", type=Path, help="file to write")
    a = parser.parse_args()
    torch.set_num_threads(1)
    lm, tokenizer = load_lm(a.model)
    policy, chat = LmPolicy(lm), ChatFormat(tokenizer)
    engine = open_engine(a.server, a.folder, timeout=900, wait=900, tell=print)
    engine.meet(policy, chat)
    found = {}
    for when in ("as published", "after a reload"):
        if when == "after a reload":
            torch.manual_seed(0)
            with torch.no_grad():
                for p in policy.parameters():
                    p.add_(0.002 * torch.randn_like(p))
            engine.follow(policy)
        found[when] = compared(policy, chat, engine, a.group, a.tokens)
        print(f"{when}, {found[when]['tokens']} tokens: mean and largest difference")
        for name, d in found[when].items():
            if name != "tokens":
                exact, server = d["from_float64"], d["from_server"]
                print(
                    f"  {name:17} from float64 {exact['mean']:.1e} {exact['max']:.1e}   "
                    f"from the server {server['mean']:.1e} {server['max']:.1e}"
                )
    engine.close()
    if a.json:
        a.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
