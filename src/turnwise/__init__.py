"""Turnwise trains agents that cannot see the state, and measures them against the truth.

    import turnwise as tw

    logs = tw.read_logs("logs.jsonl")
    clone = tw.fit(tw.BC(epochs=6), logs, out="runs/bc")
    agent = tw.fit(tw.ILQL(tau=0.95), logs, policy=clone, out="runs/ilql")
    agent.reply([{"role": "user", "content": "My screen is black."}])

Names are loaded when they are first used, so that importing this costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_PLACES = {
    # doing
    "fit": "recipes.training.fit",
    "evaluate": "recipes.measuring.evaluate",
    "compare": "recipes.measuring.compare",
    "sweep": "recipes.sweep",
    "improve": "recipes.improving.story",
    "estimate": "recipes.measuring.estimate",
    "solve": "recipes.solve",
    "plan": "recipes.plan",
    "load": "recipes.opened",
    "export": "recipes.export",
    "watch": "recipes.measuring.watch",
    "record": "recipes.record",
    "read_logs": "data.files.logs",
    "read_feedback": "data.files.feedback",
    "read_prompts": "data.files.prompts",
    "write_logs": "data.files.logs",
    "write_talk": "recipes.talking",
    "convert": "data.files.convert",
    "write_report": "evaluation.pages.report",
    "model_folder": "models.lm.gguf",
    # what comes back
    "Policy": "recipes.trained",
    "Actor": "recipes.trained",
    "ActPolicy": "recipes.trained",
    "Codebooks": "recipes.trained",
    "Counterpart": "recipes.trained",
    "Judge": "recipes.trained",
    "Improved": "recipes.improving.story",
    "Evaluation": "recipes.measuring.evaluation",
    "Solved": "recipes.solved",
    "InputError": "run.errors",
    "SettingError": "run.errors",
    # tasks and problems
    "CarDealer": "envs.tasks.dealer.task",
    "HelpDesk": "envs.tasks.helpdesk.task",
    "Maze": "envs.tasks.maze.task",
    "Negotiation": "envs.tasks.negotiation.task",
    "Postcards": "envs.tasks.postcards.task",
    "TravelDesk": "envs.tasks.travel.task",
    "TwentyQuestions": "envs.tasks.twenty.task",
    "Message": "envs.dialogue",
    "Response": "envs.dialogue",
    "Reference": "envs.dialogue",
    "POMDP": "envs.pomdp",
    # what algorithms share
    "AdamW": "run.settings",
    "Adam": "run.settings",
}
"""names and the modules that they are in; the others are algorithms, and stand in the catalogue"""
__all__ = [
    "A2C",
    "AWR",
    "BC",
    "DPO",
    "GRPO",
    "ILQL",
    "KTO",
    "MC",
    "ORPO",
    "POMDP",
    "PPO",
    "R2D2",
    "REINFORCE",
    "RLOO",
    "SAC",
    "ActBC",
    "ActCQL",
    "ActGiGPO",
    "ActIQL",
    "ActMC",
    "ActPPO",
    "ActPolicy",
    "Actor",
    "Acts",
    "Adam",
    "AdamW",
    "ArCHer",
    "BestOfN",
    "CarDealer",
    "Codebooks",
    "Counterpart",
    "Evaluation",
    "HelpDesk",
    "Improved",
    "InputError",
    "Judge",
    "LearntPomdp",
    "Maze",
    "Message",
    "Negotiation",
    "OnlineDPO",
    "Partner",
    "Policy",
    "Postcards",
    "Reference",
    "ReplyREINFORCE",
    "Response",
    "RewardModel",
    "SettingError",
    "SimPO",
    "Solved",
    "TalkPPO",
    "TalkRLOO",
    "TokenPPO",
    "TravelDesk",
    "TurnIQL",
    "TwentyQuestions",
    "compare",
    "convert",
    "estimate",
    "evaluate",
    "export",
    "fit",
    "improve",
    "load",
    "model_folder",
    "plan",
    "read_feedback",
    "read_logs",
    "read_prompts",
    "record",
    "solve",
    "sweep",
    "watch",
    "write_logs",
    "write_report",
    "write_talk",
]

if TYPE_CHECKING:
    from turnwise.algorithms.acting.a2c import Config as A2C
    from turnwise.algorithms.acting.ppo import Config as PPO
    from turnwise.algorithms.acting.r2d2 import Config as R2D2
    from turnwise.algorithms.acting.reinforce import Config as REINFORCE
    from turnwise.algorithms.acting.sac import Config as SAC
    from turnwise.algorithms.acts.bc import Config as ActBC
    from turnwise.algorithms.acts.codebooks import Config as Acts
    from turnwise.algorithms.acts.cql import Config as ActCQL
    from turnwise.algorithms.acts.gigpo import Config as ActGiGPO
    from turnwise.algorithms.acts.iql import Config as ActIQL
    from turnwise.algorithms.acts.mc import Config as ActMC
    from turnwise.algorithms.acts.pomdp import Config as LearntPomdp
    from turnwise.algorithms.acts.ppo import Config as ActPPO
    from turnwise.algorithms.feedback.dpo import Config as DPO
    from turnwise.algorithms.feedback.kto import Config as KTO
    from turnwise.algorithms.feedback.orpo import Config as ORPO
    from turnwise.algorithms.feedback.reward import Config as RewardModel
    from turnwise.algorithms.feedback.simpo import Config as SimPO
    from turnwise.algorithms.logs.awr import Config as AWR
    from turnwise.algorithms.logs.bc import Config as BC
    from turnwise.algorithms.logs.ilql import Config as ILQL
    from turnwise.algorithms.logs.mc import Config as MC
    from turnwise.algorithms.logs.partner import Config as Partner
    from turnwise.algorithms.logs.turn_iql import Config as TurnIQL
    from turnwise.algorithms.replies.best_of_n import Config as BestOfN
    from turnwise.algorithms.replies.grpo import Config as GRPO
    from turnwise.algorithms.replies.online_dpo import Config as OnlineDPO
    from turnwise.algorithms.replies.reply_reinforce import Config as ReplyREINFORCE
    from turnwise.algorithms.replies.rloo import Config as RLOO
    from turnwise.algorithms.replies.token_ppo import Config as TokenPPO
    from turnwise.algorithms.talk.archer import Config as ArCHer
    from turnwise.algorithms.talk.ppo import Config as TalkPPO
    from turnwise.algorithms.talk.rloo import Config as TalkRLOO
    from turnwise.data.files.convert import convert
    from turnwise.data.files.feedback import read_feedback
    from turnwise.data.files.logs import read_logs, write_logs
    from turnwise.data.files.prompts import read_prompts
    from turnwise.envs.dialogue import Message, Reference, Response
    from turnwise.envs.pomdp import POMDP
    from turnwise.envs.tasks.dealer.task import CarDealer
    from turnwise.envs.tasks.helpdesk.task import HelpDesk
    from turnwise.envs.tasks.maze.task import Maze
    from turnwise.envs.tasks.negotiation.task import Negotiation
    from turnwise.envs.tasks.postcards.task import Postcards
    from turnwise.envs.tasks.travel.task import TravelDesk
    from turnwise.envs.tasks.twenty.task import TwentyQuestions
    from turnwise.evaluation.pages.report import write_report
    from turnwise.models.lm.gguf import model_folder
    from turnwise.recipes.export import export
    from turnwise.recipes.improving.story import Improved, improve
    from turnwise.recipes.measuring.compare import compare
    from turnwise.recipes.measuring.estimate import estimate
    from turnwise.recipes.measuring.evaluate import evaluate
    from turnwise.recipes.measuring.evaluation import Evaluation
    from turnwise.recipes.measuring.watch import watch
    from turnwise.recipes.opened import load
    from turnwise.recipes.plan import plan
    from turnwise.recipes.record import record
    from turnwise.recipes.solve import solve
    from turnwise.recipes.solved import Solved
    from turnwise.recipes.sweep import sweep
    from turnwise.recipes.talking import write_talk
    from turnwise.recipes.trained import Actor, ActPolicy, Codebooks, Counterpart, Judge, Policy
    from turnwise.recipes.training.fit import fit
    from turnwise.run.errors import InputError, SettingError
    from turnwise.run.settings import Adam, AdamW


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        found = getattr(importlib.import_module(f"turnwise.{_PLACES[name]}"), name)
    elif name in __all__:  # an algorithm: its settings, by the name that its row of the catalogue says
        from turnwise.recipes.catalogue import ALGORITHMS

        (found,) = (row.config for row in ALGORITHMS.values() if row.export == name)
    else:
        raise AttributeError(f"module 'turnwise' has no attribute {name!r}")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return __all__
