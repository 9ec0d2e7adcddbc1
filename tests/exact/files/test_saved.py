from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from turnwise.envs.pomdp import POMDP
from turnwise.envs.problems.classics import light_dark, t_maze
from turnwise.exact.files.saved import load_problem, save_problem
from turnwise.run.errors import InputError


@pytest.mark.parametrize("problem", [light_dark(), t_maze(2).showing_initial()])
def test_a_problem_comes_back_as_it_was(problem: POMDP, tmp_path: Path) -> None:
    save_problem(problem, tmp_path / "p.npz")
    back = load_problem(tmp_path / "p.npz")
    for field in ("states", "actions", "observations", "discount", "name"):
        assert getattr(back, field) == getattr(problem, field)
    for field in ("start", "rewards", "ends"):
        np.testing.assert_array_equal(getattr(back, field), getattr(problem, field))
    for field in ("transitions", "emissions", "initial", "seen_rewards"):
        rows, kept = getattr(problem, field), getattr(back, field)
        assert (rows is None) == (kept is None)
        if rows is not None:
            np.testing.assert_array_equal(kept.dense(), rows.dense())


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p.npz").write_text("no")
    with pytest.raises(InputError, match="expected a problem as turnwise solve keeps it"):
        load_problem(tmp_path / "p.npz")
