"""How a trained policy or agent is measured. Nothing here imports torch."""

from __future__ import annotations

from dataclasses import dataclass

from turnwise.run.checks import NOT_NEGATIVE, ONE_OR_MORE, SEED, TWO_OR_MORE, check


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
            temperature=NOT_NEGATIVE,
        )


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

    def __post_init__(self) -> None:
        check(self, episodes=TWO_OR_MORE, seed=SEED, lanes=ONE_OR_MORE, horizon=ONE_OR_MORE)
