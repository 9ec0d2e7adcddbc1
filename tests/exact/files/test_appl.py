"""APPL's `.policy` files: read as well as written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from turnwise.envs.problems.classics import tiger
from turnwise.exact.alpha_policy import AlphaPolicy
from turnwise.exact.files.appl import read_appl, write_appl
from turnwise.exact.reference_policies import policy_value
from turnwise.exact.sarsop.solve import solve
from turnwise.run.errors import InputError

SOME = """<?xml version="1.0" encoding="ISO-8859-1"?>
<Policy version="0.1" type="value" model="x.pomdp">
<AlphaVector vectorLength="3" numObsValue="1" numVectors="2">
<Vector action="1" obsValue="0">1 -2.5 3e-2 </Vector>
<SparseVector action="0" obsValue="0"> <Entry>2 7</Entry> <Entry>0 1</Entry> </SparseVector>
</AlphaVector> </Policy>
"""


def test_dense_and_sparse_vectors(tmp_path: Path) -> None:
    (tmp_path / "x.policy").write_text(SOME)
    found = read_appl(tmp_path / "x.policy")
    np.testing.assert_array_equal(found.alphas, [[1, -2.5, 0.03], [1, 0, 7]])
    assert found.actions.tolist() == [1, 0] and found.successors is None


def test_a_policy_that_is_written_and_read_is_worth_as_much(tmp_path: Path) -> None:
    p = tiger()
    s = solve(p)
    write_appl(s.policy, tmp_path / "t.policy", "tiger")
    back = read_appl(tmp_path / "t.policy")
    np.testing.assert_array_equal(back.alphas, s.policy.alphas)
    found = policy_value(p, back, gap=1e-3, deadline=5)
    assert found is not None
    assert found[1] >= s.lower - 1e-9 and found[0] <= s.upper + 1e-9 and found[1] - found[0] < 2e-3


def test_what_vectors_promise_is_not_what_acting_by_them_is_worth() -> None:
    # vectors that promise a thousand for listening: listening for ever is worth -1 / (1 - .95)
    lies = AlphaPolicy(np.array([[1000.0, 1000.0], [0.0, 0.0]]), np.array([0, 1]), None)
    found = policy_value(tiger(), lies, gap=1e-3, deadline=5)
    assert found is not None and found == pytest.approx((-20, -20), abs=2e-3)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("1 -2.5 3e-2", "1 -2.5", r"x.policy:4: 2 numbers; expected 3"),
        ("1 -2.5 3e-2", "1 two 3", r"x.policy:4: .*expected numbers"),
        ("1 -2.5 3e-2", "1 nan 3", r"x.policy:4: a number that is not finite"),
        ('numObsValue="1"', 'numObsValue="2"', r"x.policy:3: numObsValue is above 1"),
        ("2 7", "3 7", r"x.policy:5: an entry; expected a state below 3"),
        ("<Policy", "<Pomdp", "no XML"),
        ('action="1"', 'action="-1"', r"x.policy:4: action is '-1'"),
    ],
)
def test_what_is_wrong_is_named(old: str, new: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "x.policy").write_text(SOME.replace(old, new))
    with pytest.raises(InputError, match=words):
        read_appl(tmp_path / "x.policy")
