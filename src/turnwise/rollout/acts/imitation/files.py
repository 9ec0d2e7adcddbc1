"""Clones of the logged agent that count, as files: arrays without pickles, and how to read them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file, save_file

from turnwise.data.acts.pack import ActSymbols
from turnwise.rollout.acts.chooser import Chooser, LoggedActs
from turnwise.rollout.acts.imitation.exchanges import ExchangeActs, ExchangeNetwork, layers
from turnwise.rollout.acts.imitation.frequencies import TimedActs

ARRAYS, WEIGHTS = "counts.npz", "exchanges.safetensors"


def save_imitation(clone: Chooser, folder: Path) -> dict[str, Any] | None:
    """Write a clone into a folder that is there; what tells `load_imitation` how to read it. None if it is
    none of those that count."""
    if isinstance(clone, LoggedActs):
        _write(folder, begin=clone.begin, after=clone.after)
        return {"kind": "logged"}
    if isinstance(clone, TimedActs):
        _write(folder, table=clone.table)
        return {"kind": "timed", "symbols": asdict(clone.symbols)}
    if isinstance(clone, ExchangeActs):
        _write(folder, weights=clone.weights)
        about = {"symbols": asdict(clone.symbols), "turns": clone.turns, "penalty": clone.penalty}
        return {"kind": "exchanges", **about}
    if isinstance(clone, ExchangeNetwork):
        weights = {k: v.detach().contiguous() for k, v in clone.network.state_dict().items()}
        save_file(weights, folder / WEIGHTS)
        return {"kind": "exchange network", "symbols": asdict(clone.symbols), "turns": clone.turns}
    return None


def load_imitation(found: Mapping[str, Any], folder: Path) -> Chooser | None:
    """What `save_imitation` wrote; None for another kind. OSError, ValueError, KeyError, TypeError or
    RuntimeError for what is not as it was written."""
    kind = found["kind"]
    if kind == "exchange network":
        symbols, turns = ActSymbols(**found["symbols"]), int(found["turns"])
        network = layers(symbols, turns)
        network.load_state_dict(load_file(folder / WEIGHTS))
        return ExchangeNetwork(network.eval().requires_grad_(False), symbols, turns)
    if kind not in ("logged", "timed", "exchanges"):
        return None
    with np.load(folder / ARRAYS, allow_pickle=False) as arrays:
        if kind == "logged":
            return LoggedActs(arrays["begin"], arrays["after"])
        symbols = ActSymbols(**found["symbols"])
        if kind == "timed":
            return TimedActs(arrays["table"], symbols)
        return ExchangeActs(arrays["weights"], symbols, int(found["turns"]), float(found["penalty"]))


def _write(folder: Path, **arrays: np.ndarray) -> None:
    with (folder / ARRAYS).open("wb") as file:
        np.savez_compressed(file, **arrays)  # pyright: ignore[reportArgumentType]
