"""Settings that algorithms share: their ranges, the learning rate that they give, their names as flags."""

from __future__ import annotations

import subprocess
import sys

import pytest

from turnwise.run.errors import InputError, SettingError
from turnwise.run.metrics import added
from turnwise.run.optim import annealed, scheduled, warmed_up
from turnwise.run.settings import Adam, AdamW, flattened


@pytest.mark.parametrize(
    ("wrong", "said", "flag"),
    [
        (
            lambda: AdamW(lr=0.0),
            "lr is 0.0; expected a number above 0",
            "--lr 0.0: expected a number",
        ),
        (
            lambda: Adam(lr=float("nan")),
            "lr is nan; expected a number above 0",
            "--lr nan: expected a number",
        ),
        (
            lambda: AdamW(1e-3, warmup=-1),
            "warmup is -1; expected a number from 0 to",
            "--warmup -1: expected a number",
        ),
        (lambda: AdamW(1e-3, weight_decay=-0.1), "weight_decay is -0.1; expected 0", "--weight-decay -0.1: "),
        (
            lambda: Adam(1e-3, grad_clip=0.0),
            "grad_clip is 0.0; expected a number",
            "--grad-clip 0.0: ",
        ),
        (
            lambda: Adam(1e-3, schedule="steep"),  # type: ignore[arg-type]
            "schedule is 'steep'; expected linear",
            "--schedule steep: expected linear",
        ),
    ],
)
def test_numbers_that_cannot_work(wrong, said: str, flag: str) -> None:
    """In Python the setting is named, at the command line its flag."""
    with pytest.raises(SettingError, match=said) as found:
        wrong()
    assert isinstance(found.value, InputError) and found.value.as_flag().startswith(flag)


def test_the_learning_rate_rises_then_falls() -> None:
    """Of 10 steps, 4 of warm-up, peak 1: step 1 has 2/4 of 9/10, step 5 has 5/10, step 9 has 1/10.

    With 40 steps the last would have 1/40; a twentieth is the least.
    """
    s = AdamW(lr=1.0, warmup=0.4)
    assert [warmed_up(s, i, 10) for i in (1, 5, 9)] == pytest.approx([0.45, 0.5, 0.1], abs=1e-12)
    assert warmed_up(s, 39, 40) == 0.05
    # The same share of 5 steps is 2 of them: a short run learns at its rate too.
    assert [warmed_up(s, i, 5) for i in (0, 1, 2)] == pytest.approx([0.5, 0.8, 0.6], abs=1e-12)
    assert warmed_up(AdamW(lr=2.0, warmup=0), 0, 10) == 2.0
    assert [scheduled(Adam(lr=2.0), left) for left in (1.0, 0.25, 0.01)] == pytest.approx([2.0, 0.5, 0.1])


def test_a_constant_rate_rises_and_stays() -> None:
    """Of 10 steps, 4 of warm-up: 1/4, then 1 to the end; without warm-up it is what was set at once."""
    s = AdamW(lr=1.0, warmup=0.4, schedule="constant")
    assert [warmed_up(s, i, 10) for i in (0, 3, 9)] == pytest.approx([0.25, 1.0, 1.0])
    assert [scheduled(Adam(lr=2.0, schedule="constant"), left) for left in (1.0, 0.01)] == [2.0, 2.0]


def test_groups_are_opened() -> None:
    found = flattened({"out": "x", "config": {"epochs": 2, "optimizer": {"lr": 0.1}}})
    assert found == {"out": "x", "epochs": 2, "lr": 0.1}


def test_nothing_that_help_reads_imports_torch() -> None:
    """`--help` prints settings in a fraction of a second; torch alone takes longer to import."""
    modules = "turnwise.run.settings, turnwise.run.checks, turnwise.run.metrics, turnwise.losses.names"
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_a_number_goes_linearly_from_its_start_to_its_end() -> None:
    """From 1 to 0.2: 0.2 + 0.8 * 1/4 = 0.4 with a quarter of training to come."""
    assert [annealed(1.0, 0.2, x) for x in (1.0, 0.25, 0.0)] == pytest.approx([1.0, 0.4, 0.2])


def test_sums_of_batches_are_added_by_name() -> None:
    total = added({}, {"loss": 1.5, "decisions": 2})
    assert added(total, {"loss": 2.0, "decisions": 3}) == {"loss": 3.5, "decisions": 5}
