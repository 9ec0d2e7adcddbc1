"""What a page says of a run's critic, and that a critic which knows nothing colours nothing."""

from __future__ import annotations

import json
import re

import pytest

from turnwise.evaluation.pages.training import heldout_figures
from turnwise.evaluation.pictures.conversations import value_line
from turnwise.run.metrics import MOVING_TARGET, Metric

COLOURED = re.compile(r'<span class="t [pn][1-6]')
DOT = re.compile(r'<circle class="[pn][1-6]"')


def test_a_critic_that_knows_nothing_colours_nothing_and_the_page_says_why(run, read, write_critic):
    text = "This critic does not beat a constant on 300 conversations: its colours say nothing yet."
    assert COLOURED.search(read(run).html) and DOT.search(read(run).html)
    page = read(write_critic(run, knows=False, sentence=text))
    assert not COLOURED.search(page.html) and not DOT.search(page.html)
    assert page.text.count(text) == 2  # where the critic is judged, and where the colours would be
    assert "Nothing is coloured; its figures are under the mouse." in page.text
    assert "advantage +0.01" in page.html


@pytest.mark.parametrize("knows", [None, "no file"])
def test_a_critic_of_which_nothing_is_known_colours_nothing(knows, run, read, write_critic):
    if knows is None:
        write_critic(run, knows=None, sentence="Nothing can be said of this critic.", v=None, q=None)
    else:
        (run / "critic.json").unlink()
    if knows is None:
        found = json.loads((run / "critic.json").read_text())
        del found["q"], found["v"]
        (run / "critic.json").write_text(json.dumps(found))
    page = read(run)
    assert not COLOURED.search(page.html)
    says = "Nothing can be said of this critic." if knows is None else "never held against conversations"
    assert says in page.text


def test_noise_of_a_hundredth_of_the_returns_spread_is_not_seen(run, read, write_critic):
    """Advantages up to .1 beside a deviation of 3.5: .1 / 3.5 of 6 levels is .17, no colour."""
    returns = {"mean": 5.8, "std": 3.5, "low": 0.0, "high": 10.0}
    assert not COLOURED.search(read(write_critic(run, returns=returns)).html)


def test_the_page_shows_the_figures_beside_a_constant_and_a_regression_on_words(run, read):
    page = read(run)
    row = page.row("Q, all turns")
    assert row.startswith("Q, all turns 300 −0.300 0.25 0.10 to 0.40")
    assert row.count("0.25 0.10 to 0.40") == 7
    assert "What is judged is R² after calibration of Q over all turns." in page.text
    assert "2 more were cut and are left out" in page.text
    assert "Beta 14 moves." in page.text and 'class="warning"' in page.html  # 3.25 nats are over 3


def test_a_td_loss_is_called_a_distance_to_a_moving_target_and_no_fit():
    declared = {"td": Metric("TD loss", "squared return", loss=True, about=MOVING_TARGET)}
    (figure,) = heldout_figures([{"step": 1, "heldout/td": 0.5}], declared)
    assert "its own moving target; it can fall while the values are wrong" in figure[2]
    assert "fits" not in figure[2]


def test_axes_of_v_fit_the_returns():
    """Returns from 0 to 10 fill 20 px from y = 5: V of 5 and 5.1 lie at 15 and 14.8, the mean of 5 at 15."""
    drawn = value_line([5.0, 5.1], ["z", "z"], (0.0, 10.0), 5.0)
    assert [float(y) for y in re.findall(r'cy="([\d.]+)"', drawn)] == [15.0, 14.8]
    assert 'y1="15.0"' in drawn


def test_figures_of_each_position_are_folded_under_the_table(run, read, write_critic):
    """The second turn has its own row, with its number of turns; the first and the last are above."""
    found = json.loads((run / "critic.json").read_text())
    assert "turn by turn" not in read(run).text
    q = found["q"] | {"2": found["q"]["all"] | {"turns": 123}}
    page = read(write_critic(run, q=q))
    assert "turn by turn" in page.text
    assert page.row("Q, turn 2").startswith("Q, turn 2 123")
