"""How a trained policy or agent is measured. Nothing here imports torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from turnwise.run.checks import (
    NOT_NEGATIVE,
    ONE_OR_MORE,
    POSITIVE,
    SEED,
    SHARE,
    TWO_OR_MORE,
    check,
    check_choice,
)
from turnwise.run.errors import SettingError


@dataclass(frozen=True)
class ConversationSettings:
    """How many conversations are held, and how the policy speaks in them."""

    episodes: int = 2000
    """Conversations to measure with."""
    seed: int = 0
    """The same seed gives every policy the same partners."""
    lanes: int = 64
    """Conversations at a time."""
    betas: tuple[float, ...] = ()
    """Strengths of the critic to choose from, on validation conversations; the best is kept."""
    validation_episodes: int = 300
    """Validation conversations for each of the betas."""
    proposals: int | None = None
    """Utterances that are proposed at each turn, of which the critic chooses one by the value of the whole;
    1: a critic of tokens shifts each token instead; none: as the policy was saved."""
    temperature: float = 1.0
    """Temperature of sampling; 0 is greedy."""

    def __post_init__(self) -> None:
        check(
            self,
            episodes=TWO_OR_MORE,
            seed=SEED,
            lanes=ONE_OR_MORE,
            betas=NOT_NEGATIVE,
            validation_episodes=TWO_OR_MORE,
            proposals=ONE_OR_MORE,
            temperature=NOT_NEGATIVE,
        )


@dataclass(frozen=True)
class TalkSettings:
    """How many conversations are written down, and how the policy speaks in them."""

    conversations: int = 5000
    """Conversations to hold."""
    seed: int = 0
    """The same seed writes the same file."""
    lanes: int = 64
    """Conversations at a time."""
    temperature: float = 1.0
    """Temperature of sampling of a policy that chooses words; 0 is greedy. Agents of acts take 1 alone."""

    def __post_init__(self) -> None:
        check(self, conversations=ONE_OR_MORE, seed=SEED, lanes=ONE_OR_MORE, temperature=NOT_NEGATIVE)


@dataclass(frozen=True)
class EpisodeSettings:
    """How many episodes are played, and how."""

    episodes: int = 2000
    """Whole episodes to measure with."""
    seed: int = 0
    """Seed of the environment and of the agent's own chances."""
    greedy: bool = False
    """Take the likeliest action always, instead of drawing from the policy."""
    lanes: int = 250
    """Episodes at a time."""
    horizon: int | None = None
    """Steps after which an episode is cut; none: until what could follow is negligible."""
    workers: int = 1
    """Processes that step the environment, each some of the lanes; the results are the same."""
    simulations: int = 0
    """In a problem that is written out: a planner of so many simulations a move plays beside it; 0: none."""

    def __post_init__(self) -> None:
        check(
            self,
            episodes=TWO_OR_MORE,
            seed=SEED,
            lanes=ONE_OR_MORE,
            horizon=ONE_OR_MORE,
            workers=ONE_OR_MORE,
            simulations=NOT_NEGATIVE,
        )


@dataclass(frozen=True)
class EstimateSettings:
    """How a policy is estimated from the logs of another."""

    per: Literal["act", "turn", "token"] | None = None
    """What a decision is: an act, a whole message, or a token of it; none: acts for policies that choose acts
    and for those that are given acts, else turns."""
    discount: float = 1.0
    """Discount per turn of the returns that count."""
    cluster: str | None = None
    """Column whose equal values are not independent of each other: a customer, the two sides of one talk."""
    by: str | None = None
    """Column by whose values the estimate is also made: a group, a month."""
    learnt: Literal["leave-out", "keep"] = "leave-out"
    """What becomes of conversations that any stage of the policy has learnt from; keep marks the estimate,
    which is then too high as a rule, and nothing vouches for it."""
    way: Literal["mixed", "tilted"] = "mixed"
    """Steps from the logged agent to the policy: mixed tosses a coin between both at each turn; tilted is the
    geometric mean of both, with a model of the logged agent in its place."""
    lowest: float | None = None
    """Lowest return that is possible; none: the lowest that was logged."""
    highest: float | None = None
    """Highest return that is possible; none: the highest that was logged."""
    resamples: int = 1000
    """Resamples of the logs by which intervals are found."""
    samples: int = 32
    """Replies at each turn by which acts are counted, where a language model speaks for a policy."""
    replies: int = 200_000
    """Replies in all, at most, of a policy that writes its own words and is estimated per act: more take
    longer, and reach more of the conversations."""
    talks: int = 1000
    """Talks with each learnt model at each step, where a model promises something."""
    seed: int = 0
    """Seed of halves, resamples and simulated talks."""

    def __post_init__(self) -> None:
        check(
            self,
            discount=SHARE,
            resamples=TWO_OR_MORE,
            samples=ONE_OR_MORE,
            replies=ONE_OR_MORE,
            talks=TWO_OR_MORE,
            seed=SEED,
        )
        check_choice(self, learnt=("leave-out", "keep"), way=("mixed", "tilted"))
        if self.per is not None:
            check_choice(self, per=("act", "turn", "token"))
        if None not in (self.lowest, self.highest) and not self.lowest < self.highest:  # pyright: ignore
            raise SettingError("highest", self.highest, f"more than lowest, which is {self.lowest}")


@dataclass(frozen=True)
class PartnerMeasure:
    """How a partner from logs is measured."""

    talks: int = 500
    """Talks of either kind, held and logged, that a classifier is to tell apart; half of them teach it."""
    places: int = 500
    """Places in held-out conversations at which the partner answers, where answers are counted as acts."""
    samples: int = 32
    """Answers at each of them."""
    counted: int = 20_000
    """Conversations, at most, in which tables of acts are counted."""
    episodes: int = 1000
    """Conversations of each policy, with the partner and in the true task."""
    lanes: int = 64
    """Conversations at a time."""
    seed: int = 0
    """Seed of partners, of answers and of halves."""

    def __post_init__(self) -> None:
        check(
            self,
            talks=TWO_OR_MORE,
            places=ONE_OR_MORE,
            samples=ONE_OR_MORE,
            counted=ONE_OR_MORE,
            episodes=TWO_OR_MORE,
            lanes=ONE_OR_MORE,
            seed=SEED,
        )


@dataclass(frozen=True)
class WatchSettings:
    """How episodes are watched."""

    episodes: int = 1
    """Episodes to watch."""
    seed: int = 0
    """Seed of the environment and of the agent's own chances."""
    greedy: bool = False
    """Take the likeliest action always, instead of drawing from the policy."""
    horizon: int | None = None
    """Steps after which an episode is cut; none: the environment's own, 100 if it has none."""
    render: Literal["auto", "rgb_array", "ansi", "human", "none"] = "auto"
    """What the environment is asked to render: pictures (rgb_array), texts (ansi), a window (human), or
    nothing; auto: pictures if it has them, else texts."""
    fps: float | None = None
    """Pictures a second; none: as many as the environment says, 10 if it says nothing."""

    def __post_init__(self) -> None:
        check(self, episodes=ONE_OR_MORE, seed=SEED, horizon=ONE_OR_MORE, fps=POSITIVE)
        check_choice(self, render=("auto", "rgb_array", "ansi", "human", "none"))
