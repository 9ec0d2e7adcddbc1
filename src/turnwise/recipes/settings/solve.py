"""How a POMDP is solved. Nothing here imports numpy or numba."""

from __future__ import annotations

from dataclasses import dataclass

from turnwise.run.checks import NOT_NEGATIVE, ONE_OR_MORE, POSITIVE, SEED, SHARE, Range, check, check_choice
from turnwise.run.errors import SettingError

_EPISODES = Range("0, or 2 to 1,000,000", lambda x: x == 0 or 2 <= x <= 1e6)
_MOST_NODES = 64


@dataclass(frozen=True)
class SolveSettings:
    """When the search stops, and what the policy may remember."""

    target_gap: float = 1e-3
    """Stop when the bounds are as near as this, in units of the return."""
    deadline: float = 60.0
    """Stop after so many seconds; what the page shows beside the bounds is computed within them too."""
    discount: float | None = None
    """Discount per step, in place of the problem's own."""
    horizon: int | None = None
    """End after so many steps; none: only where the problem ends."""
    ends: bool = False
    """End where the problem begins anew (a goal after which it restarts), instead of going on."""
    continuing: bool = False
    """Go on where the problem ends, as its tables say."""
    memory: str = "none"
    """none: the whole history counts. Limits: deterministic or stochastic (a policy of the last observation),
    or the number of nodes of a stochastic controller."""
    initial_observation: str = "none"
    """shown: an observation comes before the agent's first action (Gymnasium's timing); none: it does not."""
    simulate: int = 0
    """Check the policy by so many episodes against its own bounds."""
    starts: int = 24
    """With a limit of memory: points that the search begins from."""
    seed: int = 0
    """Seed of simulations and searches."""

    def __post_init__(self) -> None:
        check(
            self,
            target_gap=NOT_NEGATIVE,
            deadline=POSITIVE,
            discount=SHARE,
            horizon=ONE_OR_MORE,
            simulate=_EPISODES,
            starts=ONE_OR_MORE,
            seed=SEED,
        )
        check_choice(self, initial_observation=("shown", "none"))
        if self.ends and self.continuing:
            raise SettingError("ends", True, "ends or continuing, and not both")
        _ = self.nodes

    @property
    def nodes(self) -> int | None:
        """Memories of the controller that is asked for: None no limit, 0 deterministic memoryless."""
        named = {"none": None, "deterministic": 0, "stochastic": 1}
        memory = str(self.memory)
        if memory in named:
            return named[memory]
        if memory.isdecimal() and 1 <= int(memory) <= _MOST_NODES:
            return int(memory)
        expected = f"none, deterministic, stochastic, or a number of memory nodes (1 to {_MOST_NODES})"
        raise SettingError("memory", self.memory, expected)
