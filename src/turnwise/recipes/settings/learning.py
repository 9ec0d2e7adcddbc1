"""What training a language model takes of the machine, and which of its weights learn.

Fields are keywords of `turnwise.fit` and flags of `turnwise train`. Nothing here imports torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from turnwise.run.checks import BELOW_ONE, NOT_NEGATIVE, ONE_OR_MORE, POSITIVE, check, check_choice
from turnwise.run.errors import SettingError

Precision = Literal["float32", "bfloat16"]
Autocast = Literal["none", "bfloat16"]
Adapters = Literal["merged", "kept"]


@dataclass(frozen=True)
class Learning:
    """How a language model learns: precision, memory, adapters."""

    dtype: Precision = "float32"
    """Precision of the weights while they learn. bfloat16 halves their memory, and loses steps smaller than
    1/256 of a weight: meant for weights under adapters, which are float32 in any case. A policy is saved in
    the precision in which it came."""
    autocast: Autocast = "none"
    """Precision of matrix products, whatever that of the weights. bfloat16 is faster where the processor has
    it; losses, values and updates stay float32."""
    micro_batch: int | None = None
    """Rows that are read at a time; gradients add up to those of the whole batch. none: as many as need about
    4 GiB."""
    gradient_checkpointing: bool = False
    """Form the activations of a layer again when gradients come back to it. Less memory,
    about a third more time, the same gradients."""
    pack_rows: bool = False
    """Read the rows of a step one after another, without padding. The same losses; faster where rows differ
    in length."""
    lora_rank: int = 0
    """Train low-rank adapters of this rank instead of all weights; 0 trains all."""
    lora_alpha: float | None = None
    """What adapters add is multiplied by alpha / rank; none: twice the rank."""
    lora_dropout: float = 0.0
    """Share of what adapters read that is dropped in gradient steps; 0 for policies that learn from what they
    sample."""
    lora_targets: tuple[str, ...] = ()
    """Names of the layers that are adapted, as q_proj; none: all linear ones but the output layer."""
    adapters: Adapters = "merged"
    """merged: a whole model is saved, adapters folded in. kept: the adapters alone, as peft writes them, with
    the name of their base. Those of a critic are kept beside its policy in any case."""

    keep: Literal["last", "best"] = "last"
    """What the run comes to: what was learnt at its end, or where the loss on held-out rows was least."""
    patience: int | None = None
    """End after so many readings of held-out rows without a smaller loss; none: learn to the end."""
    heldout_every: int | None = None
    """Steps between readings of held-out rows; none: ten times log_every."""

    def __post_init__(self) -> None:
        check(
            self,
            patience=ONE_OR_MORE,
            heldout_every=ONE_OR_MORE,
            micro_batch=ONE_OR_MORE,
            lora_rank=NOT_NEGATIVE,
            lora_alpha=POSITIVE,
            lora_dropout=BELOW_ONE,
        )
        choices = {"dtype": Precision, "autocast": Autocast, "adapters": Adapters}
        check_choice(self, keep=("last", "best"), **{name: get_args(kind) for name, kind in choices.items()})
        for name, default in (
            ("lora_alpha", None),
            ("lora_dropout", 0.0),
            ("lora_targets", ()),
            ("adapters", "merged"),
        ):
            if not self.lora_rank and getattr(self, name) != default:
                raise SettingError(name, getattr(self, name), "a lora_rank above 0 beside it")
