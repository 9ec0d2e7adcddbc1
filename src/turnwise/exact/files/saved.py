"""A whole problem in one file of NumPy, to be read back as it was: what a solved run keeps beside its policy.

The text formats cannot say all that a `POMDP` can (ends of single transitions, a first observation), and a
problem may come from Python. Nothing in the file is a pickle.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from turnwise.envs.pomdp import POMDP
from turnwise.envs.rows import Rows
from turnwise.run.errors import InputError
from turnwise.run.files.whole import whole_file

TABLES = ("transitions", "emissions", "seen_rewards", "initial")
ARRAYS = ("start", "rewards", "ends")
NAMES = ("states", "actions", "observations")


def save_problem(problem: POMDP, path: Path) -> None:
    """Write a .npz that `load_problem` reads."""
    arrays: dict[str, Any] = {field: getattr(problem, field) for field in ARRAYS}
    arrays |= {field: np.array(getattr(problem, field), str) for field in NAMES}
    arrays |= {"discount": problem.discount, "name": np.array(problem.name, str)}
    for field in TABLES:
        rows = getattr(problem, field)
        if rows is not None:
            parts = {"indptr": rows.indptr, "indices": rows.indices, "data": rows.data, "width": rows.width}
            arrays |= {f"{field}.{part}": value for part, value in parts.items()}
    with whole_file(path) as part, part.open("wb") as file:
        np.savez_compressed(file, **arrays)


def load_problem(path: Path) -> POMDP:
    """Read what `save_problem` wrote. Anything else is an InputError."""
    try:
        with np.load(path, allow_pickle=False) as found:
            fields: dict[str, Any] = {field: found[field] for field in ARRAYS}
            fields |= {field: tuple(found[field].tolist()) for field in NAMES}
            for field in TABLES:
                fields[field] = None
                if f"{field}.indptr" in found:
                    indptr, indices, data = (
                        found[f"{field}.{part}"] for part in ("indptr", "indices", "data")
                    )
                    fields[field] = Rows(indptr, indices, data, int(found[f"{field}.width"]))
            return POMDP(discount=float(found["discount"]), name=str(found["name"]), **fields)
    except (OSError, ValueError, KeyError, EOFError) as e:
        raise InputError(f"{path}: expected a problem as turnwise solve keeps it (.npz): {e}") from e
