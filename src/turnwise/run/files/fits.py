"""Whether a checkpoint is of this very learner: the same parts, the same names, the same shapes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from turnwise.run.errors import InputError

PARTS = ("module", "optimizer", "target", "experience")
"""what a checkpoint holds of a learner"""


def expect_fits(state: Mapping[str, Any], module: nn.Module, target: Any, experience: bool) -> None:
    """InputError unless `state` has what a learner of these parts needs, and nothing else.

    Without this a weight that is missing would be a fresh one, in silence.
    """
    for name, own in (("target", target is not None), ("experience", experience)):
        if (state[name] is not None) != own:
            raise InputError(f"{name} is {'missing' if own else 'there and should not be'}")
    expect_like("module", state["module"], module.state_dict())
    if target is not None:
        expect_like("target", state["target"], target.state_dict())
    expect_names("optimizer", state["optimizer"], ("state", "param_groups"))
    parameters = dict(module.named_parameters())
    for name, moments in state["optimizer"]["state"].items():
        # A parameter that never had a gradient has no moments.
        expect_names("optimizer/state", [name], [name] if name in parameters else [])
        for key, x in moments.items():
            if x.shape not in ((), parameters[name].shape):
                raise InputError(f"optimizer/state/{name}/{key} has the shape {list(x.shape)}")


def expect_names(where: str, found: Iterable[str], wanted: Iterable[str]) -> None:
    """InputError that names what is missing, or is there and unknown."""
    found, wanted = set(found), set(wanted)
    for words, names in (("lacks", wanted - found), ("has an unknown", found - wanted)):
        if names:
            raise InputError(f"{where} {words} {min(names)}")


def expect_like(where: str, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """InputError unless two dicts of tensors have the same names, shapes and kinds of numbers."""
    expect_names(where, found, wanted)
    for name, x in wanted.items():
        if isinstance(x, Tensor) and (found[name].shape, found[name].dtype) != (x.shape, x.dtype):
            there, here = (f"{y.dtype} {list(y.shape)}" for y in (found[name], x))
            raise InputError(f"{where}/{name} is {there}; expected {here}")
