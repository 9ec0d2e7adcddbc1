"""What is known of each algorithm, in one row: help, tables, pages, docs and the Python door read it here.

A new algorithm is its file, one row, one page and one test; docs/how-to/add-an-algorithm.md has each place
that mentions it. Nothing here imports torch: a row names its file, and `Algorithm.module` imports it when
somebody trains.
"""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.util
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from turnwise.run.metrics import OPTIMIZER

Family = Literal[
    "logs",
    "partners",
    "codebooks",
    "act_agents",
    "plans",
    "talkers",
    "conversations",
    "preferences",
    "replies",
    "reward",
    "acting",
]

FAMILIES: dict[Family, str] = {
    "logs": "a policy from logged conversations",
    "partners": "somebody to talk with, from logged conversations",
    "codebooks": "what messages mean, from logged conversations",
    "act_agents": "an agent that chooses what to mean, from logged conversations",
    "plans": "an agent that plans what to mean, in a model of logged conversations",
    "talkers": "an agent that chooses what to mean, from its own talk",
    "conversations": "a policy from its own conversations with a task",
    "reward": "a reward model from feedback",
    "preferences": "a policy from feedback alone",
    "replies": "a policy from its own replies, judged by a reward",
    "acting": "an agent with memory, from its own acting in an environment",
}
"""what a family learns, from what; `recipes/training/families.py` leads to its recipe"""


@dataclass(frozen=True)
class Algorithm:
    """One algorithm."""

    name: str
    """at the command line: `turnwise train NAME`"""
    export: str
    """in Python: `turnwise.EXPORT` is its `Config`"""
    title: str
    """on pages and in tables"""
    what: str
    """one phrase for help"""
    family: Family
    file: str
    """module that tells its story, below `turnwise.algorithms`"""
    fresh: bool = False
    """whether it may begin with a fresh model; the other language-model algorithms begin with a policy"""
    critic: bool = False
    """whether it has a critic of its own that may see what the actor does not"""
    holds: Literal["", "a slow copy", "a critic"] = ""
    """what it holds beside the language model that learns, of the same size"""
    replays: bool = False
    """whether it learns from earlier conversations too, so that logged ones may be among them"""

    @property
    def module(self) -> ModuleType:
        """The algorithm: `Config`, `METRICS`, `loss`, `update`, `train`. Imports torch."""
        return importlib.import_module(f"turnwise.algorithms.{self.file}")

    @property
    def config(self) -> type[Any]:
        """Its settings. Imports torch; `light_config` does not."""
        return self.module.Config

    @property
    def light_config(self) -> type[Any]:
        """A twin of `config`: the same fields, defaults, help and checks, without importing torch."""
        return _light(self.file).Config

    def facts(self) -> dict[str, Any]:
        """What a run folder says of the algorithm that made it (algorithm.json)."""
        logged = self.module.METRICS | OPTIMIZER
        metrics = {name: asdict(metric) for name, metric in logged.items()}
        return {
            "name": self.name,
            "title": self.title,
            "what": self.what,
            "family": self.family,
            "metrics": metrics,
        }


_ROWS = (
    Algorithm("bc", "BC", "BC", "behaviour cloning, of all conversations or of the best only",
              "logs", "logs.bc", fresh=True),
    Algorithm("mc", "MC", "Monte-Carlo Q", "Monte-Carlo values per token", "logs", "logs.mc"),
    Algorithm("ilql", "ILQL", "ILQL", "implicit language Q-learning per token", "logs", "logs.ilql",
              holds="a slow copy"),
    Algorithm("turn-iql", "TurnIQL", "turn-level IQL",
              "implicit Q-learning per turn, choosing among sampled utterances", "logs", "logs.turn_iql",
              holds="a slow copy"),
    Algorithm("awr", "AWR", "AWR",
              "cloning of what a critic finds better, which then speaks without it", "logs", "logs.awr",
              holds="a critic"),
    Algorithm("partner", "Partner", "Partner",
              "the other side cloned: its words, when it ends a talk, what was earned",
              "partners", "logs.partner", fresh=True),
    Algorithm("acts", "Acts", "Acts", "acts of both sides, given or discovered", "codebooks",
              "acts.codebooks"),
    Algorithm("act-bc", "ActBC", "BC per act", "behaviour cloning of acts", "act_agents", "acts.bc"),
    Algorithm("act-mc", "ActMC", "Monte-Carlo Q per act", "Monte-Carlo values per act", "act_agents",
              "acts.mc"),
    Algorithm("act-iql", "ActIQL", "IQL per act", "implicit Q-learning per act", "act_agents", "acts.iql"),
    Algorithm("act-cql", "ActCQL", "CQL per act",
              "conservative Q-learning per act; at weight 0, double Q-learning on histories", "act_agents",
              "acts.cql"),
    Algorithm("pomdp", "LearntPomdp", "Plan in a learnt POMDP",
              "a POMDP learnt from logged acts, and a plan in it", "plans", "acts.pomdp"),
    Algorithm("act-ppo", "ActPPO", "PPO per act",
              "proximal policy optimisation per act, talking with a task or with learnt models", "talkers",
              "acts.ppo", holds="a critic"),
    Algorithm("act-gigpo", "ActGiGPO", "GiGPO per act",
              "acts compared with those of other conversations at an equal state, without a critic",
              "talkers", "acts.gigpo"),
    Algorithm("talk-ppo", "TalkPPO", "PPO over conversations",
              "PPO per token or per turn, over whole conversations", "conversations", "talk.ppo",
              holds="a critic"),
    Algorithm("talk-rloo", "TalkRLOO", "RLOO over conversations",
              "REINFORCE over whole conversations, against others with the same partner", "conversations",
              "talk.rloo"),
    Algorithm("archer", "ArCHer", "ArCHer",
              "a critic of utterances from replay, and tokens of the newest conversations", "conversations",
              "talk.archer", holds="a critic", replays=True),
    Algorithm("reward", "RewardModel", "Reward model", "a reward model from pairs, rankings, likes or scores",
              "reward", "feedback.reward", fresh=True),
    Algorithm("dpo", "DPO", "DPO", "direct preference optimisation on pairs or rankings, and its kin",
              "preferences", "feedback.dpo"),
    Algorithm("kto", "KTO", "KTO", "Kahneman-Tversky optimisation on likes and dislikes",
              "preferences", "feedback.kto"),
    Algorithm("simpo", "SimPO", "SimPO", "preference optimisation on pairs, without a reference",
              "preferences", "feedback.simpo"),
    Algorithm("orpo", "ORPO", "ORPO", "odds-ratio preference optimisation on pairs, cloning what was chosen",
              "preferences", "feedback.orpo"),
    Algorithm("rloo", "RLOO", "RLOO", "REINFORCE with leave-one-out baselines", "replies", "replies.rloo"),
    Algorithm("grpo", "GRPO", "GRPO", "group relative policy optimisation", "replies", "replies.grpo"),
    Algorithm("token-ppo", "TokenPPO", "PPO", "PPO per token, with a learned critic", "replies",
              "replies.token_ppo", holds="a critic"),
    Algorithm("reply-reinforce", "ReplyREINFORCE", "REINFORCE", "REINFORCE on whole replies, with a baseline",
              "replies", "replies.reply_reinforce"),
    Algorithm("online-dpo", "OnlineDPO", "Online DPO", "DPO on the policy's best and worst replies",
              "replies", "replies.online_dpo"),
    Algorithm("best-of-n", "BestOfN", "Best of n", "cloning of the best of n replies (rejection sampling)",
              "replies", "replies.best_of_n"),
    Algorithm("ppo", "PPO", "PPO", "proximal policy optimisation", "acting", "acting.ppo", critic=True),
    Algorithm("a2c", "A2C", "A2C", "advantage actor-critic", "acting", "acting.a2c", critic=True),
    Algorithm("reinforce", "REINFORCE", "REINFORCE", "REINFORCE from whole episodes", "acting",
              "acting.reinforce", critic=True),
    Algorithm("r2d2", "R2D2", "R2D2", "Q-learning on histories, from replay", "acting", "acting.r2d2"),
    Algorithm("sac", "SAC", "SAC", "soft actor-critic, from replay", "acting", "acting.sac"),
)  # fmt: skip
ALGORITHMS: dict[str, Algorithm] = {row.name: row for row in _ROWS}


def algorithm_of(config: Any) -> Algorithm:
    """The row of a `Config`. TypeError for anything else."""
    module = type(config).__module__
    for row in _ROWS:
        if module == f"turnwise.algorithms.{row.file}" and type(config).__name__ == "Config":
            return row
    names = ", ".join(f"turnwise.{row.export}(...)" for row in _ROWS)
    raise TypeError(f"{config!r} is not the settings of an algorithm; expected one of {names}")


@functools.cache
def _light(file: str) -> ModuleType:
    """`Config` of an algorithm's file and nothing else, for `--help` and for flags with a typo.

    Importing the file would import torch, which takes seconds. Its source is parsed instead, and of its
    top level only what `Config` needs is executed: the class, and the imports and assignments that it names.
    So a `Config` may name only what is quick to import (tests/recipes/test_catalogue.py keeps that).
    """
    name = f"turnwise.algorithms.{file}"
    root = importlib.util.find_spec("turnwise.algorithms")
    assert root is not None and root.origin is not None
    path = Path(root.origin).parent / f"{file.replace('.', '/')}.py"
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    known = {target: node for node in tree.body for target in _defined_by(node)}
    wanted, waiting = set[ast.stmt](), ["Config"]
    while waiting:
        node = known.get(waiting.pop())
        if node is not None and node not in wanted:
            wanted.add(node)
            # Read names only: a field may bear the name of a function of the file.
            waiting += [
                x.id for x in ast.walk(node) if isinstance(x, ast.Name) and isinstance(x.ctx, ast.Load)
            ]
    future = [n for n in tree.body if isinstance(n, ast.ImportFrom) and n.module == "__future__"]
    tree.body = [*future, *(n for n in tree.body if n in wanted and n not in future)]
    # Under a name of its own in sys.modules, with the file's path: the parser of flags reads the help of
    # fields from the source of the class, which it finds by these two.
    module = ModuleType(f"{name}:Config")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module
    exec(compile(tree, str(path), "exec"), vars(module))
    return module


def _defined_by(node: ast.stmt) -> list[str]:
    """Names that a statement at the top level gives."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        return [alias.asname or alias.name.split(".")[0] for alias in node.names]
    if isinstance(node, ast.ClassDef | ast.FunctionDef):
        return [node.name]
    if isinstance(node, ast.Assign):
        return [t.id for t in node.targets if isinstance(t, ast.Name)]
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return [node.target.id]
    return []
