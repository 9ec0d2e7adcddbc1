"""turnwise train bc | mc | ilql | turn-iql."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from turnwise.algorithms.logs import bc, ilql, mc, turn_iql
from turnwise.cli.plan import told_plan
from turnwise.cli.policies import last_metrics
from turnwise.cli.say import console, notice, parse
from turnwise.data.cards.logs import data_card, warnings
from turnwise.data.chat import ChatFormat, token_rows
from turnwise.data.dialogue import Dialogue
from turnwise.data.files.logs import read_logs
from turnwise.data.heldout import split_heldout
from turnwise.data.order import BatchOrder
from turnwise.data.tokens import Tokens
from turnwise.evaluation.measures.conversation_views import annotate_conversation
from turnwise.evaluation.pages.report import write_report
from turnwise.models.lm.critics import TokenCritic, TurnCritic
from turnwise.models.lm.fresh import llama, train_tokenizer
from turnwise.models.lm.lora import merge_adapters_, merged, with_lora
from turnwise.models.lm.parts import context_of, parameter_count, trunk_of, width_of
from turnwise.models.lm.policies import LmPolicy
from turnwise.models.lm.pretrained import load_lm
from turnwise.rollout.agent import Acting, Agent, load_agent
from turnwise.run import distributed
from turnwise.run.errors import InputError
from turnwise.run.folder import digest, expect_fresh, write_config, write_json, write_text
from turnwise.run.settings import flattened
from turnwise.run.training import TrainingRun

SHOWN = 12
"""logged conversations kept for the report page"""


@dataclass(frozen=True)
class Asked:
    """What every training run is asked."""

    logs: str
    """JSONL or Parquet file, a folder of them, or a datasets name or folder"""
    out: Path
    """run folder to write"""
    seed: int = 0
    """of fresh weights and of the order of the data"""
    agent_role: str = "assistant"
    """whose messages are the agent's"""
    credit_partner_rewards: bool = False
    """give rewards on partners' messages to the agent's message before"""
    heldout: float = 0.05
    """share of conversations that are not learnt from, picked by their ids"""
    heldout_by: str | None = None
    """column of the logs whose equal values stay together, held out or not (a customer, a scenario)"""
    lora_rank: int = 0
    """train low-rank adapters of this rank instead of all weights; 0 trains all"""
    resume: bool = False
    """go on from the checkpoint in the run folder"""
    dry_run: bool = False
    """print the plan with sizes and estimated time, and stop"""
    json: bool = False
    """print one result object on stdout"""
    device: str = "auto"
    """cpu, cuda, or auto"""
    threads: int = 1
    """CPU threads; more helps only while nothing else runs"""
    strategy: distributed.Strategy = "ddp"
    """on several processes (torchrun): replicate the model, or shard it"""
    checkpoint_every: int = 200
    """steps between checkpoints"""
    max_new_tokens: int = 64
    """longest utterance, in tokens, when acting"""


@dataclass(frozen=True)
class AskedOfBc:
    """Which language model to clone into."""

    model: str | None = None
    """run folder, model folder or hub name of any causal LM; none: a small Llama from nothing"""
    width: int = 96
    """features per position of the fresh model"""
    layers: int = 3
    """transformer blocks of the fresh model"""
    heads: int = 4
    """attention heads of the fresh model"""
    context: int = 512
    """longest history of the fresh model, in tokens"""
    vocab: int = 1024
    """most tokens that the fresh tokenizer may have"""

    def told(self) -> dict[str, Any]:
        """What a run says of its model: sizes are those of a fresh one."""
        return asdict(self) if self.model is None else {"model": self.model}


@dataclass(frozen=True)
class AskedOfValues:
    """Which cloned policy the critic is for."""

    policy: str = field()
    """run folder of a cloned policy (turnwise train bc), or any causal LM by folder or name"""


@dataclass(frozen=True)
class Bc:
    """Behaviour cloning of the logged agent."""

    asked: Asked
    model: AskedOfBc = AskedOfBc()
    config: bc.Config = field(default_factory=bc.Config)


@dataclass(frozen=True)
class Mc:
    """Monte-Carlo values per token, for a cloned policy."""

    asked: Asked
    policy: AskedOfValues
    config: mc.Config = field(default_factory=mc.Config)


@dataclass(frozen=True)
class Ilql:
    """Implicit language Q-learning per token, for a cloned policy."""

    asked: Asked
    policy: AskedOfValues
    config: ilql.Config = field(default_factory=ilql.Config)


@dataclass(frozen=True)
class TurnIql:
    """Implicit Q-learning per turn, choosing among utterances of a cloned policy."""

    asked: Asked
    policy: AskedOfValues
    config: turn_iql.Config = field(default_factory=turn_iql.Config)


KINDS = {"bc": Bc, "mc": Mc, "ilql": Ilql, "turn-iql": TurnIql}


@dataclass(frozen=True)
class Job:
    """Everything ready to train: what learns, from which rows, and how to make an agent of it."""

    chat: ChatFormat
    context: int
    module: nn.Module
    rows: list[Tokens]
    heldout: list[Tokens]
    train: Callable[[Any, Sequence[Tokens], Sequence[Tokens], TrainingRun], Any]
    agent: Callable[[nn.Module], Agent]


def run(name: str, args: Sequence[str]) -> dict[str, Any]:
    """Parse and train."""
    kind = KINDS[name]
    return train(name, parse(kind, args, f"train {name}", kind.__doc__ or ""))


def train(name: str, a: Any) -> dict[str, Any]:
    """Train one agent; its run folder is complete when this returns."""
    asked: Asked = a.asked
    out = console(asked.json)
    expect_fresh(asked.out, resume=asked.resume)
    dialogues = read_logs(
        asked.logs, agent_role=asked.agent_role, credit_partner_rewards=asked.credit_partner_rewards
    )
    _expect_possible(a)
    world = distributed.start(asked.device, asked.strategy)
    if world.device.type == "cpu":
        torch.set_num_threads(asked.threads)
    torch.manual_seed(asked.seed)
    learnt, held = split_heldout(dialogues, asked.heldout, asked.heldout_by)
    if asked.heldout and not held:
        notice(f"mind: --heldout {asked.heldout}: nothing is held out of {len(dialogues):,} conversations")
    if not learnt:
        raise InputError(
            f"--heldout {asked.heldout}: nothing is left to learn from; expected a smaller share"
        )
    job = _clone_job(a, learnt, held) if name == "bc" else _critic_job(name, a, learnt, held)
    card = data_card(
        dialogues,
        file=asked.logs,
        lengths=[len(t) for t in job.chat.encode(dialogues)],
        context=job.context,
        heldout=len(held),
    )
    if asked.dry_run:
        return _plan(name, a, job, card, out)
    world.on_main(lambda: _open_folder(name, a, card, warnings(card, dialogues), digest(dialogues)))
    plain = copy.deepcopy(job.module)
    session = TrainingRun(asked.out, world, what=name, checkpoint_every=asked.checkpoint_every)
    job.train(a.config, job.rows, job.heldout, session)
    distributed.copy_whole(job.module, plain)
    distributed.stop()
    if not world.main:
        return {}
    agent = job.agent(plain)
    agent.save(asked.out / "policy")
    shown = [d for d in (held or learnt) if d.terminated][:SHOWN] or (held or learnt)[:SHOWN]
    _write_views(asked.out, agent, shown)
    result = {
        "algorithm": name,
        "run": str(asked.out),
        "policy": str(asked.out / "policy"),
        "parameters": parameter_count(job.module),
        "conversations": len(learnt),
        "rows": len(job.rows),
        "metrics": last_metrics(asked.out),
        "report": str(write_report(asked.out)),
    }
    write_json(asked.out / "result.json", result)
    numbers = "  ".join(f"{k} {v:.4g}" for k, v in result["metrics"].items() if k not in ("step", "seconds"))
    out.print(f"{name}: {asked.out}  {numbers}")
    return result


def _expect_possible(a: Any) -> None:
    """Refuse what cannot work before anything is read or written."""
    if a.asked.device not in ("auto", "cpu", "cuda"):
        raise InputError(f"--device {a.asked.device}: expected auto, cpu or cuda")
    if a.asked.device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: this machine has none that PyTorch can use; expected cpu or auto")
    if isinstance(a, Bc) and a.asked.lora_rank and a.model.model is None:
        raise InputError(
            "--lora-rank: adapters of fresh weights would learn nothing; expected --model as well"
        )
    if isinstance(a, Bc) and a.model.model is not None:
        fresh = {**vars(AskedOfBc()), "model": a.model.model}
        for name, value in vars(a.model).items():
            if value != fresh[name]:
                raise InputError(
                    f"--{name} {value}: that is for a fresh model, and --model {a.model.model} brings "
                    "its own; expected one of the two"
                )


def _open_folder(name: str, a: Any, card: dict[str, Any], hints: Sequence[str], data: str) -> None:
    """What is known before the first step."""
    write_config(
        a.asked.out, {"algorithm": name, "family": "logs", "data": data, **_flat(a)}, resume=a.asked.resume
    )
    write_json(a.asked.out / "card.json", card)
    for hint in hints:
        notice(f"mind: {hint}")


def _clone_job(a: Bc, learnt: list[Dialogue], held: list[Dialogue]) -> Job:
    """A language model to clone into, loaded or from nothing."""
    asked, m = a.asked, a.model
    if m.model is None:
        tokenizer = train_tokenizer((x.content for d in learnt for x in d.messages), m.vocab, m.context)
        chat = ChatFormat(tokenizer)
        lm = llama(
            len(tokenizer),
            width=m.width,
            layers=m.layers,
            heads=m.heads,
            context=m.context,
            eos=chat.stop,
            pad=tokenizer.pad_token_id,
        )
    else:
        start = Path(m.model) / "policy"
        lm, tokenizer = load_lm(str(start if start.is_dir() else m.model))
        chat = ChatFormat(tokenizer)
    context = context_of(lm)
    if asked.lora_rank:
        lm = with_lora(lm, asked.lora_rank)
    policy = LmPolicy(lm)
    acting = Acting(max_new_tokens=asked.max_new_tokens)

    def agent(trained: nn.Module) -> Agent:
        assert isinstance(trained, LmPolicy)
        return Agent(merged(trained.lm), tokenizer, None, acting)

    return Job(
        chat=chat,
        context=context,
        module=policy,
        rows=token_rows(bc.keep(learnt, a.config), chat, context),
        heldout=token_rows(held, chat, context),
        train=lambda c, rows, heldout, session: bc.train(c, rows, heldout, policy, session, asked.seed),
        agent=agent,
    )


def _critic_job(name: str, a: Mc | Ilql | TurnIql, learnt: list[Dialogue], held: list[Dialogue]) -> Job:
    """A critic on a copy of the cloned policy's trunk; its heads start at the mean return."""
    asked = a.asked
    cloned = load_agent(a.policy.policy)
    if cloned.critic is not None:
        raise InputError(
            f"--policy {a.policy.policy}: this run has a critic already; expected the run of a cloned policy "
            "(turnwise train bc)"
        )
    chat = ChatFormat(cloned.tokenizer)
    context = context_of(cloned.lm)
    own = copy.deepcopy(cloned.lm)
    if asked.lora_rank:
        own = with_lora(own, asked.lora_rank)
    trunk, width, vocab = trunk_of(own), width_of(own), cloned.lm.config.vocab_size
    mean = sum(d.undiscounted_return() for d in learnt) / len(learnt)
    c = a.config
    acting = Acting(beta=c.beta, max_new_tokens=asked.max_new_tokens)
    critic: Any
    algorithm: Callable[..., Any]
    if isinstance(c, turn_iql.Config):
        critic, algorithm = TurnCritic(trunk, width, initial=mean), turn_iql.train
        acting = replace(acting, proposals=c.proposals)
    else:
        acting = replace(acting, adv_clip=c.adv_clip, top_k=c.top_k)
        if isinstance(c, mc.Config):
            critic = TokenCritic(trunk, width, vocab, ensemble=1, state_value=False, initial=mean)
            algorithm = mc.train
        else:
            critic, algorithm = TokenCritic(trunk, width, vocab, initial=mean), ilql.train

    def agent(trained: nn.Module) -> Agent:
        assert isinstance(trained, TokenCritic | TurnCritic)
        if asked.lora_rank:
            merge_adapters_(trained.trunk)
        return Agent(cloned.lm, cloned.tokenizer, trained, acting)

    return Job(
        chat=chat,
        context=context,
        module=critic,
        rows=token_rows(learnt, chat, context),
        heldout=token_rows(held, chat, context),
        train=lambda c, rows, heldout, session: algorithm(c, rows, heldout, critic, session, asked.seed),
        agent=agent,
    )


def _plan(name: str, a: Any, job: Job, card: dict[str, Any], out: Any) -> dict[str, Any]:
    """What would be done, and for how long: a few steps are timed on a copy."""
    order = BatchOrder([len(t) for t in job.rows], a.config.batch_size, a.asked.seed)
    steps = max(1, round(a.config.epochs * order.batches_per_epoch))
    few = [job.rows[i] for step in range(min(3, order.batches_per_epoch)) for i in order.rows(step)]
    sizes = {
        "algorithm": name,
        "conversations": card["conversations"],
        "held_out": card["heldout"],
        "rows": len(job.rows),
        "tokens": sum(len(t) for t in job.rows),
        "actions": sum(len(t.decisions) for t in job.rows),
        "parameters": parameter_count(job.module),
    }
    timed = max(1, -(-len(few) // a.config.batch_size))
    return told_plan(
        out, sizes, steps, timed, lambda run: job.train(replace(a.config, epochs=1.0), few, [], run)
    )


def _write_views(folder: Path, agent: Agent, shown: Sequence[Dialogue]) -> None:
    """Logged conversations with what the trained agent thinks of them."""
    chat = agent.chat
    context = context_of(agent.lm)
    fitting = [(d, t) for d, t in zip(shown, chat.encode(shown), strict=True) if len(t) <= context]
    lines = [
        json.dumps(annotate_conversation(agent, d, t, source="log"), ensure_ascii=False) for d, t in fitting
    ]
    write_text(folder / "conversations.jsonl", "".join(line + "\n" for line in lines))


def _flat(a: Any) -> dict[str, Any]:
    """Every flag and its value, but for those that only say how this call behaves."""
    merged_fields = flattened(asdict(a) | ({"model": a.model.told()} if isinstance(a, Bc) else {}))
    for name in ("resume", "dry_run", "json", "device", "threads", "strategy"):
        merged_fields.pop(name)
    return {k: str(v) if isinstance(v, Path) else v for k, v in merged_fields.items()}
