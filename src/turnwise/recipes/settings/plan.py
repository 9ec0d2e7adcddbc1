"""How an online planner acts in a POMDP. Nothing here imports numpy or numba."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from turnwise.run.checks import (
    INSIDE,
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
class PlanSettings:
    """How much is simulated before each move, and for how many episodes it acts."""

    simulations: int = 1000
    """Simulations before each move."""
    episodes: int = 40
    """Whole episodes that the planner plays."""
    steps: int | None = None
    """Steps after which an episode is cut; none: until what could follow is negligible."""
    exploration: float | None = None
    """UCB1's constant, in units of the return; none: largest less smallest reward. Simulators need it."""
    precision: float = 0.01
    """Simulations end at the depth where discount^depth falls below it."""
    look_ahead: int | None = None
    """Steps that a simulation looks ahead, at most; needed at discount 1."""
    particles: int = 0
    """States that stand for a belief (POMCP); 0: the exact belief (PO-UCT), or 1,000 with a simulator."""
    rollouts: Literal["random", "informed"] = "random"
    """How simulations go on beyond the tree: at random, or half of the time by what is best if the state is
    seen."""
    discount: float | None = None
    """Discount per step, in place of the problem's own."""
    ends: bool = False
    """End where the problem begins anew, instead of going on."""
    continuing: bool = False
    """Go on where the problem ends, as its tables say."""
    initial_observation: Literal["none", "shown"] = "none"
    """shown: an observation comes before the first action; none: it does not."""
    deadline: float = 10.0
    """Seconds for the bounds of the best value, which the planner stands beside."""
    seed: int = 0
    """Seed of the episodes and of the simulations."""

    def __post_init__(self) -> None:
        check(
            self,
            simulations=ONE_OR_MORE,
            episodes=TWO_OR_MORE,
            steps=ONE_OR_MORE,
            exploration=NOT_NEGATIVE,
            precision=INSIDE,
            look_ahead=ONE_OR_MORE,
            particles=NOT_NEGATIVE,
            discount=SHARE,
            deadline=POSITIVE,
            seed=SEED,
        )
        check_choice(self, rollouts=("random", "informed"), initial_observation=("none", "shown"))
        if self.ends and self.continuing:
            raise SettingError("ends", True, "ends or continuing, and not both")
