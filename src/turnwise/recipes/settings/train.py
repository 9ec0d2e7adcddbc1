"""What a run is asked beside its algorithm's numbers: one value a topic, for Python and the command line.

A field is a keyword of `turnwise.fit` and a flag of `turnwise train`. Nothing here imports torch.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from turnwise.run.checks import (
    BELOW_ONE,
    LAYERS,
    NOT_NEGATIVE,
    ONE_OR_MORE,
    POSITIVE,
    SEED,
    TWO_OR_MORE,
    check,
    check_choice,
)
from turnwise.run.errors import SettingError

DEVICES = ("auto", "cpu", "cuda")


@dataclass(frozen=True)
class RunSettings:
    """Where the run is written and what it runs on."""

    out: Path
    """Run folder to write."""
    seed: int = 0
    """Seed of fresh weights, of the order of the data, and of everything that is sampled."""
    resume: bool = False
    """Go on from the checkpoint in the run folder."""
    device: str = "auto"
    """cpu, cuda, or auto: cuda for language models where there is one, cpu for agents with memory."""
    threads: int = 1
    """CPU threads; more helps only while nothing else runs."""
    checkpoint_every: int = 100
    """Steps between checkpoints."""
    checkpoints: int = 2
    """Checkpoints that stay, the latest ones; turnwise compare --checkpoints ranks the policies in them."""
    log_every: int = 10
    """Steps between lines of metrics; the first and the last step have one in any case. Held-out batches are
    read at every tenth of those."""
    track: Literal["none", "tensorboard", "wandb", "trackio"] = "none"
    """Who hears of the metrics too: tensorboard, by files in the run folder; wandb (Weights & Biases) or
    trackio, as a run of theirs. Each needs its package."""

    def __post_init__(self) -> None:
        check(
            self,
            seed=SEED,
            threads=ONE_OR_MORE,
            checkpoint_every=ONE_OR_MORE,
            checkpoints=TWO_OR_MORE,
            log_every=ONE_OR_MORE,
        )
        check_choice(self, device=DEVICES, track=("none", "tensorboard", "wandb", "trackio"))


@dataclass(frozen=True)
class LogReading:
    """How logged conversations are read."""

    agent_role: str = "assistant"
    """Role whose messages are the agent's."""
    credit_partner_rewards: bool = False
    """Give rewards on a partner's message to the agent's message before it."""
    outcome_column: str | None = None
    """Column with the outcome of a conversation; none: outcome."""
    missing_outcome: str | None = None
    """What becomes of conversations without an outcome where others have one: leave-out, or a number that
    they count as; none: they stay what they are, and what learns from outcomes refuses them."""
    truncation: Literal["cut", "end"] = "cut"
    """What a truncated conversation is: cut, and what would have followed is worth something; or at its end,
    where the limit that cut it is a rule of the talk."""
    map_role: tuple[str, ...] = ()
    """Whose messages a role of another name has, each as NAME=ROLE: rep=assistant."""
    skip_bad: bool = False
    """Leave bad rows out and say how many, instead of refusing all."""


@dataclass(frozen=True)
class FeedbackReading:
    """How feedback, or prompts, are read."""

    map_role: tuple[str, ...] = ()
    """Whose messages a role of another name has, each as NAME=ROLE: rep=assistant."""
    skip_bad: bool = False
    """Leave bad rows out and say how many, instead of refusing all."""


@dataclass(frozen=True)
class LogSettings:
    """What learning from logged conversations is asked."""

    heldout: float = 0.05
    """Share of conversations that are kept from learning, picked by their words; twins stay together."""
    heldout_by: str | None = None
    """Column of the logs whose equal values stay together, held out or not (a customer, a scenario); or a
    column and the values that are held out (split=test)."""
    heldout_logs: str | None = None
    """Logs of their own that are held out, beside logs that are all learnt from."""
    frozen_trunk: bool = False
    """Leave the trunk of a critic as the policy's is: its features of all conversations are read once, and
    the heads learn on them. Many times faster; a trunk that learns too may know more."""
    features: Path | None = None
    """Folder in which the features of a frozen trunk are kept, for other critics of the same policy and logs;
    none: they are gone with the process."""
    max_new_tokens: int = 64
    """Longest utterance when acting, in tokens."""
    strategy: Literal["ddp", "fully_shard"] = "ddp"
    """On several processes (torchrun): replicate the model, or shard it."""

    def __post_init__(self) -> None:
        check(self, heldout=BELOW_ONE, max_new_tokens=ONE_OR_MORE)


@dataclass(frozen=True)
class PartnerSettings:
    """What learning the other side of logged conversations is asked."""

    heldout: float = 0.05
    """Share of conversations that are kept from learning, picked by their words; twins stay together."""
    heldout_by: str | None = None
    """Column of the logs whose equal values stay together, held out or not (a customer, a scenario); or a
    column and the values that are held out (split=test)."""
    heldout_logs: str | None = None
    """Logs of their own that are held out, beside logs that are all learnt from."""
    facts: tuple[str, ...] = ()
    """Columns of the logs that the partner knows and the agent does not: its goal, its fault, its budget. A
    talk begins with those of a logged conversation."""
    max_new_tokens: int = 64
    """Longest turn of the partner, in tokens; one that has no end then fails the talk."""
    strategy: Literal["ddp", "fully_shard"] = "ddp"
    """On several processes (torchrun): replicate the model, or shard it."""

    def __post_init__(self) -> None:
        check(self, heldout=BELOW_ONE, max_new_tokens=ONE_OR_MORE)


@dataclass(frozen=True)
class ActSettings:
    """What learning acts from logged conversations is asked."""

    heldout: float = 0.05
    """Share of conversations that are kept from learning, picked by their words; twins stay together."""
    heldout_by: str | None = None
    """Column of the logs whose equal values stay together, held out or not (a customer, a scenario); or a
    column and the values that are held out (split=test)."""
    heldout_logs: str | None = None
    """Logs of their own that are held out, beside logs that are all learnt from."""

    def __post_init__(self) -> None:
        check(self, heldout=BELOW_ONE)


@dataclass(frozen=True)
class Ending:
    """What a run on logged conversations ends with."""

    estimate: bool = True
    """End with what the conversations that were held out say that the policy is worth."""


@dataclass(frozen=True)
class Start:
    """The language model to begin with: one that exists, or a small Llama from nothing."""

    model: str | None = None
    """Run folder, model folder, adapter folder (peft) or hub name of any language model, causal or an
    encoder-decoder; none: a small Llama from nothing."""
    width: int = 96
    """Features per position of the fresh model."""
    layers: int = 3
    """Transformer blocks of the fresh model."""
    heads: int = 4
    """Attention heads of the fresh model."""
    context: int = 512
    """Longest history of the fresh model, in tokens."""
    vocab: int = 1024
    """Most tokens that the fresh tokenizer may have; it is trained on 100,000 conversations at most."""

    def __post_init__(self) -> None:
        check(self, width=ONE_OR_MORE, layers=LAYERS, heads=ONE_OR_MORE, context=TWO_OR_MORE)
        for field in fields(self)[1:]:
            value = getattr(self, field.name)
            if self.model is not None and value != field.default:
                expected = f"no {field.name} beside model {self.model}, which brings its own"
                raise SettingError(field.name, value, expected)

    def facts(self) -> dict[str, Any]:
        """What a run says of its model: sizes are those of a fresh one."""
        return dict(vars(self)) if self.model is None else {"model": self.model}


@dataclass(frozen=True)
class FeedbackSettings:
    """What learning from feedback is asked."""

    heldout: float = 0.1
    """Share of prompts that are kept from learning, picked by their words."""
    strategy: Literal["ddp", "fully_shard"] = "ddp"
    """On several processes (torchrun): replicate the model, or shard it."""

    def __post_init__(self) -> None:
        check(self, heldout=BELOW_ONE)


@dataclass(frozen=True)
class EnsembleSettings:
    """The members of a reward model."""

    ensemble: int = 1
    """Members, whose disagreement shows where not to trust them."""
    apart: Literal["heads", "trunks"] = "heads"
    """What each member has for itself: a head, or all that learns (a trunk; adapters if lora_rank is set)."""

    def __post_init__(self) -> None:
        check(self, ensemble=ONE_OR_MORE)


@dataclass(frozen=True)
class ReplySettings:
    """How a policy's replies are sampled and measured."""

    max_new_tokens: int = 64
    """Longest reply, in tokens."""
    evaluation_replies: int = 4
    """Replies to each held-out prompt when the policy is measured, before and after training."""
    evaluation_prompts: int = 256
    """Most held-out prompts that it replies to then, spread evenly over all of them."""
    gold: str | None = None
    """Built-in task whose truth is recorded and never learnt from: postcards."""

    def __post_init__(self) -> None:
        check(
            self,
            max_new_tokens=ONE_OR_MORE,
            evaluation_replies=ONE_OR_MORE,
            evaluation_prompts=ONE_OR_MORE,
        )


@dataclass(frozen=True)
class PrivilegedCritic:
    """What V sees while it learns, beside what was said."""

    critic_sees: tuple[str, ...] = ()
    """Hidden facts of a task that answers live (fault, persona, ...), each the same throughout a
    conversation. The policy never sees them; none: V sees what the policy sees."""


@dataclass(frozen=True)
class TalkSettings:
    """How a policy speaks while it learns from conversations."""

    max_new_tokens: int = 64
    """Longest utterance, in tokens."""

    def __post_init__(self) -> None:
        check(self, max_new_tokens=ONE_OR_MORE)


@dataclass(frozen=True)
class RewardShaping:
    """What is made of a reward before anything learns from it."""

    doubt: float = 0.0
    """Standard deviations of an ensemble's members that are taken off their mean."""
    clip_reward: float | None = None
    """Rewards are held between minus this and this."""
    per_token: float = 0.0
    """Added to the reward for each token of the reply; a negative number makes replies shorter."""
    unfinished_penalty: float = 0.0
    """Taken off if the limit on tokens cut a reply before its end."""
    reward_retries: int = 2
    """How often a reward function that fails is asked again, as for a judge that timed out."""
    reward_wait: float = 1.0
    """Seconds before a reward function is asked again; twice as many before each further time."""

    def __post_init__(self) -> None:
        check(self, clip_reward=POSITIVE, reward_retries=NOT_NEGATIVE, reward_wait=NOT_NEGATIVE)


@dataclass(frozen=True)
class RandomEpisodes:
    """The episodes that a model of an environment is learnt from: all their actions are drawn alike."""

    episodes: int = 20_000
    """Episodes of random actions, if there is an environment and no log."""
    steps: int = 30
    """Steps after which one of them is cut."""

    def __post_init__(self) -> None:
        check(self, episodes=TWO_OR_MORE, steps=ONE_OR_MORE)


@dataclass(frozen=True)
class EnvironmentSettings:
    """How episodes are played."""

    horizon: int | None = None
    """Steps after which an episode is cut; none: the environment's own, 100 if it has none."""
    workers: int = 1
    """Processes that step the environment, each some of the lanes: for environments that take milliseconds a
    step. The results are the same."""

    def __post_init__(self) -> None:
        check(self, horizon=ONE_OR_MORE, workers=ONE_OR_MORE)
