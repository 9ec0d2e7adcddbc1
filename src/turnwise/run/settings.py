"""Settings that many algorithms share. Nothing here imports torch: `--help` reads it at once.

A `Config` holds one of these as its field `optimizer`. To change one number and keep the algorithm's others:
`replace(c, optimizer=replace(c.optimizer, lr=1e-4))`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from turnwise.run.checks import BELOW_ONE, NOT_NEGATIVE, POSITIVE, check, check_choice

Schedule = Literal["linear", "cosine", "constant"]


@dataclass(frozen=True)
class AdamW:
    """AdamW with a learning rate that rises and then falls (Loshchilov & Hutter 2017, arXiv:1711.05101)."""

    lr: float
    """Peak learning rate of AdamW."""
    schedule: Schedule = "linear"
    """linear: the learning rate falls to a twentieth at the end of training. cosine: it falls so along half a
    cosine. constant: it stays, so that the length of training changes nothing but the length, once the rate
    has risen."""
    warmup: float = 0.05
    """Share of the steps over which the learning rate rises to its peak."""
    weight_decay: float = 0.0
    """Decoupled weight decay. Only matrices decay: biases, gains and embeddings do not."""
    grad_clip: float = 1.0
    """Largest global gradient norm; a longer gradient is scaled down to it."""

    def __post_init__(self) -> None:
        check(self, lr=POSITIVE, warmup=BELOW_ONE, weight_decay=NOT_NEGATIVE, grad_clip=POSITIVE)
        check_choice(self, schedule=get_args(Schedule))


@dataclass(frozen=True)
class Adam:
    """Adam (Kingma & Ba 2014, arXiv:1412.6980)."""

    lr: float
    """Learning rate of Adam; at first, if it falls."""
    schedule: Schedule = "linear"
    """linear: the learning rate falls to a twentieth at the end of training. cosine: it falls so along half a
    cosine. constant: it stays."""
    grad_clip: float = 1.0
    """Largest global gradient norm; a longer gradient is scaled down to it."""

    def __post_init__(self) -> None:
        check(self, lr=POSITIVE, grad_clip=POSITIVE)
        check_choice(self, schedule=get_args(Schedule))


def discount_of(gamma: float | None, own: float | None = None) -> float:
    """The discount per step that is used: `gamma`, else the environment's `own`, else 0.99."""
    if gamma is not None:
        return gamma
    return 0.99 if own is None else own


LANES, FEWEST = 64, 8
"""episodes under way in a run of the default length, and in the shortest"""


def lanes_of(lanes: int | None, part: float) -> int:
    """The episodes under way that are used: `lanes`, else 64 in a run of the default length.

    In a `part` of that length there are fewer in proportion, and 8 at least: many lanes would leave a short
    run a handful of updates.
    """
    return lanes if lanes is not None else max(FEWEST, min(LANES, round(LANES * part)))


def flattened(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings without their groups: `{"optimizer": {"lr": 1e-3}}` becomes `{"lr": 1e-3}`."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= flattened(value) if isinstance(value, Mapping) else {name: value}
    return flat
