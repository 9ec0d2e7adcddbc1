"""What critics see, by what moves their values; values that stay while their units move."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from turnwise.data.episode import Episode
from turnwise.data.steps import pack_steps
from turnwise.envs.protocol import Discrete
from turnwise.models.agents.pop_art import PopArtHead
from turnwise.models.agents.views import (
    ActorView,
    Critic,
    HistoryView,
    JointView,
    ObservationView,
    StateView,
    View,
)
from turnwise.models.memory.base import LearnedMemory
from turnwise.models.memory.encoders import Encoder
from turnwise.models.memory.recurrent import GRU

f64 = torch.float64
O, A, S, D = Discrete(5), Discrete(3), Discrete(4), 6


def history() -> HistoryView:
    return HistoryView(LearnedMemory(Encoder(O, A, D), GRU(D)))


VIEWS: dict[str, tuple[Callable[[], View], set[str]]] = {
    # view: what moves the value at the third of four decisions
    "V(h)": (history, {"before", "now"}),
    "V(s)": (lambda: StateView(S, D), {"state"}),
    "V(o)": (lambda: ObservationView(O, D), {"now"}),
    "V(h,s)": (lambda: JointView(history(), StateView(S, D)), {"before", "now", "state"}),
    "V(actor's memory)": (lambda: ActorView(D), set()),
}


def episode() -> Episode:
    return Episode(
        observations=np.array([0, 1, 2, 3, 4]),
        actions=np.array([0, 1, 2, 0]),
        rewards=np.ones(4),
        terminated=False,
        truncated=True,
        states=np.array([3, 2, 1, 0, 1]),
    )


def changed(what: str) -> Episode:
    """Another observation before the third decision, at it or after it; or another state at it."""
    e = episode()
    at = {"before": 1, "now": 2, "after": 3, "state": 2}[what]
    name = "states" if what == "state" else "observations"
    values = getattr(e, name).copy()
    values[at] = (values[at] + 1) % 4
    return replace(e, **{name: values})


@pytest.mark.parametrize("name", VIEWS)
def test_a_critic_sees_what_its_name_says(name: str) -> None:
    torch.manual_seed(0)
    make, seen = VIEWS[name]
    critic = Critic(make()).double()
    torch.nn.init.normal_(critic.value.out.weight)
    actors = torch.randn(1, 5, D, dtype=f64)

    def value(e: Episode) -> float:
        return float(critic(pack_steps([e], gamma=1.0, dtype=f64), actors, None)[0, 2].detach())

    moves = {what for what in ("before", "now", "after", "state") if value(changed(what)) != value(episode())}
    assert moves == seen


def test_the_final_states_value_is_that_of_what_the_last_action_led_to() -> None:
    torch.manual_seed(0)
    critic = Critic(StateView(S, D)).double()
    torch.nn.init.normal_(critic.value.out.weight)
    values = critic(pack_steps([episode()], gamma=1.0, dtype=f64), torch.zeros(1, 5, D, dtype=f64), None)[0]
    # States 3, 2, 1, 0, 1. Processors that multiply rows by blocks may round equal rows apart.
    assert_close(values[2], values[4], rtol=0, atol=1e-12)
    assert len((values * 1e9).round().unique()) == 4


def test_an_environment_that_hides_its_states_has_no_critic_of_them() -> None:
    batch = pack_steps([replace(episode(), states=None)], gamma=1.0)
    with pytest.raises(ValueError, match="states"):
        Critic(StateView(S, D))(batch, torch.zeros(1, 5, D), None)


def test_memories_of_two_views_stand_side_by_side() -> None:
    """A segment begins where both stood: rows cut in two give the values of whole ones."""
    torch.manual_seed(0)
    critic = Critic(JointView(history(), JointView(StateView(S, D), history()))).double()
    torch.nn.init.normal_(critic.value.out.weight)
    assert critic.state_size == 2 * D
    batch, state = pack_steps([episode()], gamma=1.0, dtype=f64), torch.zeros(1, 2 * D, dtype=f64)
    for t in range(2):
        state = critic.step(type(batch.inputs)(*(x[:, t] for x in batch.inputs)), state)
    e = episode()
    rest = replace(
        e,
        observations=e.observations[2:],
        actions=e.actions[2:],
        rewards=e.rewards[2:],
        states=e.states[2:],  # type: ignore[index]
        age=2,
        previous_action=e.actions[1],
        previous_reward=1.0,
        memory=state[0].detach().numpy(),
    )
    after = pack_steps([rest], gamma=1.0, dtype=f64)
    found = critic(after, torch.zeros(1, 3, D, dtype=f64), after.state0)
    whole = critic(batch, torch.zeros(1, 5, D, dtype=f64), None)
    assert_close(found, whole[:, 2:], rtol=0, atol=1e-12)


def test_units_move_and_values_stay() -> None:
    """Targets around -100, then around 3: outputs are the same numbers before and after each move."""
    torch.manual_seed(0)
    head, x = PopArtHead(D).double(), torch.randn(50, D, dtype=f64)
    torch.nn.init.normal_(head.out.weight)
    before = head(x)
    for center, spread in ((-100.0, 20.0), (3.0, 0.01), (0.0, 5.0)):
        head.update_scale_(center + spread * torch.randn(200, dtype=f64))
        assert_close(head(x), before, rtol=0, atol=1e-9)


def test_units_are_those_of_the_targets() -> None:
    """Targets 1 and 3 first: mean 2, deviation 1. The second move is by half, later ones by a tenth."""
    head = PopArtHead(D).double()
    head.update_scale_(torch.tensor([1.0, 3.0], dtype=f64))
    assert (float(head.mean), float(head.scale)) == (2.0, 1.0)
    head.update_scale_(torch.tensor([3.0, 9.0], dtype=f64))
    assert (float(head.mean), float(head.scale)) == (4.0, 2.0)
    for _ in range(20):
        head.update_scale_(torch.tensor([4.0, 4.0], dtype=f64))
    before = float(head.mean), float(head.scale)
    head.update_scale_(torch.tensor([14.0, 14.0], dtype=f64))
    assert float(head.mean) == pytest.approx(before[0] + 1.0)
    assert float(head.scale) == pytest.approx(0.9 * before[1])


def test_targets_that_are_all_alike_leave_a_scale_of_one() -> None:
    head = PopArtHead(D)
    head.update_scale_(torch.full((8,), 5.0))
    assert float(head.scale) == 1.0 and float(head.mean) == 5.0
    assert_close(head(torch.randn(3, D)), torch.zeros(3, 1))
