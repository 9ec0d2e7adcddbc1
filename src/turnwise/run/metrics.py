"""What the numbers in metrics.jsonl are. Nothing here imports torch.

An algorithm declares its own numbers after its `Config`, as `METRICS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Metric:
    """One number that is logged. Under `heldout/KEY` stands the same number on held-out data."""

    what: str
    """What people call it on a plot or in a table: "TD loss", "mean Q"."""
    unit: str = ""
    """Unit of the number; empty where it has none, as a share."""
    loss: bool = False
    """Whether it is a training objective or a part of one."""
    panel: str = ""
    """Title of the plot that it shares with others, as "Q and V"; empty: a plot of its own."""
    about: str = ""
    """What a loss is a distance to, and what it does not say; empty: pages say that it is a loss."""


STD = "standard deviations of the return"
"""Unit in which critics of conversations learn: any reward scale gives the same training."""
SQUARED_STD = "squared standard deviations of the return"

MOVING_TARGET = "distance of the critic to its own moving target; it can fall while the values are wrong"
MONTE_CARLO = (
    "squared distance to the returns that followed; even perfect values leave the part of the return that "
    "chance decides, so that only beside a constant (R², below) does it say anything"
)
CONSERVATIVE = (
    "how far Q of the logged words is from being the highest; it says nothing of how well Q predicts returns"
)


CLOCKS: dict[str, Metric] = {
    "step": Metric("updates", "steps"),
    "seconds": Metric("time of training", "s"),
}
"""How far training is."""

OPTIMIZER: dict[str, Metric] = {
    "grad_norm": Metric("gradient norm before clipping"),
    "lr": Metric("learning rate"),
}
"""Numbers about the gradient steps of a step; absent if it took none, as before a replay is full enough."""

COMMON: dict[str, Metric] = CLOCKS | OPTIMIZER
"""Numbers that every run logs."""

EPISODES: dict[str, Metric] = {
    "episode_return": Metric("return of an episode", "return"),
    "discounted_return": Metric("discounted return of an episode", "return"),
    "episode_length": Metric("length of an episode", "steps"),
    "episodes": Metric("episodes that ended", "episodes"),
}
"""Numbers about the episodes that ended since the last line; absent if none did."""

REPLIES: dict[str, Metric] = {
    "reward": Metric("reward", "reward"),
    "reward_std": Metric("standard deviation of the reward", "reward"),
    "gold": Metric("gold reward", "reward"),
    "kl": Metric("KL to the reference", "nats per reply"),
    "completions/mean_length": Metric("length of a reply", "tokens"),
    "completions/clipped_ratio": Metric("share of replies cut by the limit"),
    "left_out": Metric("prompts left out so far, as the reward was silent", "prompts"),
    "engine/logp_error_max": Metric("largest difference of the engine's log-probabilities", "nats per token"),
    "engine/logp_error_mean": Metric("mean difference of the engine's log-probabilities", "nats per token"),
    "skipped": Metric("steps so far that learnt nothing, as all was left out", "steps"),
}
"""Numbers about the replies that were sampled in a step; `gold` only if the truth is known, which nothing
learns from. The two counts are of the whole run, and are absent while they are 0. Those of the engine compare
the servers that spoke with the policy itself, on the same tokens with the same weights."""


TALKS: dict[str, Metric] = {
    "talks": Metric("conversations so far", "conversations"),
    "episode_return": Metric("return of a conversation", "return"),
    "return_std": Metric("standard deviation of the return", "return"),
    "episode_length": Metric("length of a conversation", "turns of the agent"),
    "tokens": Metric("what the agent said in a conversation", "tokens"),
    "truncated": Metric("share of conversations that were cut"),
    "left_out": Metric("conversations so far that nothing was learnt from", "conversations"),
}
"""Numbers about the conversations of an iteration, before the update. `left_out` is of the whole run, and is
absent while it is 0."""


def scaled(sums: Mapping[str, Any], by: float) -> dict[str, Any]:
    """Each sum times a number: 0 for what was read and does not count."""
    return {name: by * value for name, value in sums.items()}


def added(total: Mapping[str, Any], sums: Mapping[str, Any]) -> dict[str, Any]:
    """Sums of several batches: those of one more, `sums`, added to the `total` so far (empty at first)."""
    return {name: total[name] + value if name in total else value for name, value in sums.items()}
