"""Episodes of an agent as the report page shows them: what it saw, estimated and did, and what was hidden."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from turnwise.data.batch import Batch
from turnwise.data.episode import Episode
from turnwise.data.steps import pack_steps
from turnwise.envs.gymnasium.lanes import GymnasiumLanes
from turnwise.envs.pomdp import POMDP
from turnwise.envs.protocol import Discrete, LaneEnv, Space, Vector
from turnwise.envs.tabular import TabularEnv
from turnwise.evaluation.measures.agents.belief_probe import beliefs_along
from turnwise.evaluation.measures.agents.episodes import discounted
from turnwise.models.agents.action_heads import Categorical
from turnwise.models.agents.actor_critic import ActorCritic
from turnwise.models.agents.q_network import QNetwork
from turnwise.models.agents.soft_actor_critic import SoftActorCritic, TwinQ, TwinQOfVectors
from turnwise.rollout.episodes.bounds import to_environment

SHOWN_STEPS = 200
"""steps of an episode that are kept, at most"""
LIKELIEST = 4
"""states of a belief that are kept, at most"""
RARE = 0.005
"""states less likely than this are not kept"""


def annotate_episodes(
    agent: Any, env: LaneEnv, episodes: Sequence[Episode], *, gamma: float | None
) -> list[dict[str, Any]]:
    """Each episode with its steps: observation, action, reward, hidden state, belief, values, probabilities.

    A step has no entry for what the environment or the agent does not have. `gamma` None: no discounted
    return.
    """
    problem = env.problem if isinstance(env, TabularEnv) else None
    values, probabilities, q = _estimates(agent, pack_steps(episodes, gamma=gamma or 1.0))
    beliefs = _beliefs(problem, episodes) if problem is not None else None
    found = []
    for i, e in enumerate(episodes):
        rows = []
        acted = to_environment(e.actions, env.action_space)  # the agent's actions may be on another scale
        for t in range(min(len(e), SHOWN_STEPS)):
            row: dict[str, Any] = {
                "observation": _observation(e.observations[t], env),
                "action": _action(acted[t], env),
                "reward": float(e.rewards[t]),
            }
            if e.states is not None and env.state_space is not None:
                row["state"] = _named(e.states[t], env.state_space, problem and problem.states)
            if beliefs is not None:
                row["belief"] = beliefs[i][t]
            if values is not None:
                row["value"] = float(values[i, t])
            if probabilities is not None:
                row["probabilities"] = [float(p) for p in probabilities[i, t]]
            if q is not None:
                row["q"] = [float(x) for x in q[i, t]]
            rows.append(row)
        found.append(
            {
                "id": f"episode {i + 1}",
                "return": float(e.rewards.sum()),
                "discounted": None if gamma is None else discounted(e, gamma),
                "length": len(e),
                "ended": "terminated" if e.terminated else "truncated",
                "actions": _action_names(env.action_space, env),
                "steps": rows,
            }
        )
    return found


def _estimates(agent: Any, batch: Batch) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """V [B, A], probabilities of actions [B, A, n], Q [B, A, n]; None for what an agent does not have.

    V is the critic's value, even if the critic sees more than the agent. An agent of Q values has
    V = max_a Q(a). A soft actor-critic has V = sum_a pi(a) min(Q_1, Q_2)(a), without the entropy bonus; of
    vectors V is Q of the likeliest one.
    """
    with torch.inference_mode():
        if isinstance(agent, ActorCritic):
            out = agent(batch)
            discrete = isinstance(agent.head, Categorical)
            return out.values[:, :-1], out.policy.softmax(-1) if discrete else None, None
        if isinstance(agent, QNetwork):
            q = agent(batch)[:, :-1]
            return q.max(-1).values, None, q
        if isinstance(agent, SoftActorCritic) and isinstance(agent.critics, TwinQOfVectors):
            likeliest = agent.head.mode(agent.policy(batch)[:, :-1])
            q = agent.critics.q(agent.critics.features(batch, None)[:, :-1], likeliest)
            return q.amin(0), None, None
        if isinstance(agent, SoftActorCritic):
            assert isinstance(agent.critics, TwinQ)
            p = agent.policy(batch)[:, :-1].softmax(-1)
            q = agent.critics(batch, None).amin(0)[:, :-1]
            return (p * q).sum(-1), p, None
    return None, None, None


def _beliefs(problem: POMDP, episodes: Sequence[Episode]) -> list[list[list[list[Any]]]]:
    """For each episode and step, the likeliest states as [name, probability], the likeliest first."""
    found: list[list[list[list[Any]]]] = [[] for _ in episodes]
    for running, beliefs in beliefs_along(problem, episodes, SHOWN_STEPS):
        for i, row in zip(running, beliefs, strict=True):
            p, states = row.data, row.indices
            best = np.argsort(-p, kind="stable")[:LIKELIEST]
            found[i].append([[problem.states[states[k]], float(p[k])] for k in best if p[k] >= RARE])
    return found


def _observation(seen: Any, env: LaneEnv) -> str:
    if isinstance(env, TabularEnv) and seen == env.null:
        return "(nothing yet)"
    names = env.problem.observations if isinstance(env, TabularEnv) else None
    return _named(seen, env.observation_space, names)


def _action(given: np.ndarray, env: LaneEnv) -> str:
    """An action as the environment takes it: a symbol by its name or number, others abbreviated."""
    problem = env.problem if isinstance(env, TabularEnv) else None
    if isinstance(env, GymnasiumLanes) and not isinstance(env.action_space, Vector):
        return _said(env.translation.actions.write_one(given))
    return _named(given, env.action_space, problem and problem.actions)


def _said(action: Any) -> str:
    """An action of an environment's own, in few characters."""
    if isinstance(action, dict):
        return ", ".join(f"{key} {_said(part)}" for key, part in action.items())
    if isinstance(action, tuple):
        return f"({', '.join(map(_said, action))})"
    return str(np.asarray(action).tolist())


def _named(value: Any, space: Space, names: Sequence[str] | None) -> str:
    """The name of a symbol, or its number if it has none; vectors are abbreviated."""
    if isinstance(space, Discrete):
        return str(names[int(value)] if names is not None else int(value))
    shown, size = [f"{x:.3g}" for x in np.asarray(value)[:4]], np.size(value)
    more = f", … ({size})" if size > 4 else ""
    return f"({', '.join(shown)}{more})"


def _action_names(space: Space, env: LaneEnv) -> list[str] | None:
    if not isinstance(space, Discrete):
        return None
    return [_action(np.array(a), env) for a in range(space.n)]
