"""An epoch of a critic on features that were read once, against an epoch through the trunk.

    python benchmarks/frozen_trunk.py                            a small clone, made here
    python benchmarks/frozen_trunk.py --model models/smollm2     any causal LM, as it is, LoRA in its critic
    python benchmarks/frozen_trunk.py --whole                    both trained to the end: what each knows

HelpDesk's whimsical agent, 2,000 conversations. An epoch through the trunk is timed over a few batches,
spread evenly over it, and an epoch on features over all of its batches. With a pretrained model the critic
that trains its trunk does so by adapters of rank 8. Seconds are those of the processor, one thread.

`--whole` trains both by the defaults and prints held-out R2 of Q over all turns, with its interval.
"""

from __future__ import annotations

import argparse
import copy
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import turnwise as tw
from turnwise.algorithms.logs import ilql, mc, turn_iql
from turnwise.data.batch import pack_tokens, pack_turns
from turnwise.data.order import BatchOrder
from turnwise.data.rows import lengths, token_rows
from turnwise.envs.tasks.helpdesk.logs import helpdesk_logs
from turnwise.models.lm.critics import FrozenTrunk
from turnwise.models.lm.lora import with_lora
from turnwise.models.lm.parts import context_of, trunk_of, width_of
from turnwise.models.target import copy_of_what_learns, slow_copy
from turnwise.recipes.settings.train import RunSettings
from turnwise.recipes.training.logs.frozen import FrozenFeatures
from turnwise.recipes.training.machine import Machine
from turnwise.rollout.load import load_agent
from turnwise.run.distributed import World
from turnwise.run.learner import Learner

ALGORITHMS: dict[str, Any] = {"mc": mc, "ilql": ilql, "turn-iql": turn_iql}
CONFIGS: dict[str, Any] = {"mc": tw.MC, "ilql": tw.ILQL, "turn-iql": tw.TurnIQL}


def epoch(name: str, critic: Any, rows: Any, size: int, batches: int | None) -> float:
    """Seconds of an epoch of updates, from `batches` of it (None: all)."""
    module = ALGORITHMS[name]
    c = module.Config()
    learner = Learner(critic, c.optimizer, None if name == "mc" else slow_copy(critic))
    order = BatchOrder(lengths(rows), size, 0)
    n = order.batches_per_epoch
    chosen = range(n) if batches is None else np.linspace(0, n - 1, batches).astype(int)
    pack: Any = pack_turns if name == "turn-iql" else pack_tokens
    more = () if name == "mc" else (0.5,)
    began = time.process_time()
    for step in chosen:
        batch = pack([rows[i] for i in order.rows(int(step))], gamma=1.0)
        module.update(learner, [batch], 1000.0, c, c.optimizer.lr, *more)
    return (time.process_time() - began) * n / len(chosen)


def timed(name: str, agent: Any, logs: Any, lora: int, size: int, batches: int) -> dict[str, float]:
    """Seconds of reading once, of an epoch on what was read, and of one through the trunk."""
    lm = agent.lm
    rows = token_rows(logs, agent.chat, context_of(lm))
    width, c = width_of(lm), ALGORITHMS[name].Config()
    tokens = lm.get_output_embeddings().weight.detach()
    features = FrozenFeatures(trunk_of(lm), width, [rows], None)
    began = time.process_time()
    features.read(Machine(RunSettings(Path()), World(), quiet=True))
    reading = time.process_time() - began
    (seen,) = features.rows()
    on_features = epoch(name, ALGORITHMS[name].new_critic(c, FrozenTrunk(), tokens, 0.0), seen, size, None)
    own = with_lora(copy_of_what_learns(lm.requires_grad_(False)), lora) if lora else copy.deepcopy(lm)
    trunk = trunk_of(own)
    through = epoch(name, ALGORITHMS[name].new_critic(c, trunk, tokens, 0.0), rows, size, batches)
    return {"reading": reading, "features": on_features, "trunk": through, "ratio": through / on_features}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", help="folder of a causal LM; none: a small clone")
    parser.add_argument("--algorithms", nargs="+", default=list(ALGORITHMS), choices=list(ALGORITHMS))
    parser.add_argument("--conversations", type=int, default=2000)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--batches", type=int, default=4, help="batches that are timed through the trunk")
    parser.add_argument("--whole", action="store_true", help="train both, and print what they know")
    parser.add_argument("--json", type=Path, help="file to write")
    a = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    logs, found = tw.read_logs(helpdesk_logs(a.conversations, 0), quiet=True), []
    lora = 8 if a.model else 0
    with tempfile.TemporaryDirectory() as folder:
        policy: Any = a.model
        if policy is None:
            policy = Path(folder) / "clone"
            tw.fit(tw.BC(), logs, out=policy, quiet=True)
        agent = load_agent(policy)
        for name in a.algorithms:
            row: dict[str, Any] = {
                "algorithm": name,
                **timed(name, agent, logs, lora, a.batch_size, a.batches),
            }
            print(
                f"{name:9} read once in {row['reading']:6.1f} s; an epoch takes {row['features']:7.2f} s on "
                f"features and {row['trunk']:7.1f} s through the trunk: {row['ratio']:.1f} times",
                flush=True,
            )
            for way in (True, False) if a.whole else ():
                more: dict[str, Any] = {"frozen_trunk": True} if way else {"lora_rank": lora}
                given: dict[str, Any] = {"policy": policy, "heldout": 0.2, "quiet": True, "estimate": False}
                run = tw.fit(CONFIGS[name](), logs, **given, **more)
                row["frozen" if way else "learnt"] = known = run.result["critic"]
                print(f"          {'frozen' if way else 'learnt'} trunk: {known['sentence']}", flush=True)
            found.append(row)
    if a.json is not None:
        a.json.write_text(json.dumps({"torch": torch.__version__, "runs": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
