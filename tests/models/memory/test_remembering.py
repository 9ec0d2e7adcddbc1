"""Every core, over rows and step by step: the same numbers, nothing from the future, nothing from padding."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from turnwise.data.steps import StepInputs
from turnwise.envs.protocol import Discrete, Vector
from turnwise.models.memory.attention import CausalTransformer
from turnwise.models.memory.base import Core, LearnedMemory
from turnwise.models.memory.encoders import Encoder, ObservationEncoder
from turnwise.models.memory.linear_recurrence import LinearRecurrence
from turnwise.models.memory.recurrent import GRU, LSTM
from turnwise.models.memory.window import Window
from turnwise.run.errors import SettingError

f64 = torch.float64
D = 8
CORES: dict[str, Callable[[], Core]] = {
    "gru": lambda: GRU(D),
    "lstm": lambda: LSTM(D),
    "linear recurrence": lambda: LinearRecurrence(D),
    "linear recurrence, 3 layers": lambda: LinearRecurrence(D, 3),
    "transformer": lambda: CausalTransformer(D, 1, 2, 5),
    "transformer, 3 layers": lambda: CausalTransformer(D, 3, 1, 5),
    "transformer, wide context": lambda: CausalTransformer(D, 2, 2, 40),
    "window 1": lambda: Window(D, 1),
    "window 5": lambda: Window(D, 5),
}


@pytest.fixture(params=CORES)
def core(request: pytest.FixtureRequest) -> Core:
    torch.manual_seed(0)
    return CORES[request.param]().to(f64)


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=f64, generator=torch.Generator().manual_seed(sum(shape)))


def folded(core: Core, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Slow twin of `unroll`: one step after the other, and the state that they leave."""
    if state is None:
        state = torch.zeros(len(x), core.state_size, dtype=x.dtype)
    features = []
    for t in range(x.shape[1]):
        y, state = core.step(x[:, t], state)
        features.append(y)
    return torch.stack(features, 1), state


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


@pytest.mark.parametrize("before", [1, 3, 11])
def test_rows_are_steps_from_any_memory(core: Core, before: int) -> None:
    _, state = folded(core, noise(3, before, D))
    assert state.shape == (3, core.state_size)
    x = noise(3, 13, D)
    close(core.unroll(x, state), folded(core, x, state)[0])


def test_zeros_are_the_memory_of_nothing(core: Core) -> None:
    x = noise(3, 13, D)
    close(core.unroll(x), folded(core, x)[0])
    close(core.unroll(x), core.unroll(x, torch.zeros(3, core.state_size, dtype=f64)))


@pytest.mark.parametrize("cut", [1, 4, 12])
def test_a_row_cut_in_two_goes_on(core: Core, cut: int) -> None:
    x = noise(3, 13, D)
    _, state = folded(core, x[:, :cut])
    close(core.unroll(x), torch.cat([core.unroll(x[:, :cut]), core.unroll(x[:, cut:], state)], 1))


def test_lanes_begin_anew_by_zeroing_their_row(core: Core) -> None:
    """Lane 1 was reset after 7 steps; lane 0 was not."""
    x, fresh = noise(2, 7, D), noise(2, 4, D)
    _, state = folded(core, x)
    y, _ = folded(core, fresh, state * torch.tensor([[1.0], [0.0]], dtype=f64))
    close(y[1:], core.unroll(fresh[1:]))
    close(y[:1], core.unroll(torch.cat([x, fresh], 1)[:1])[:, 7:])


def test_a_step_leaves_the_old_memory_as_it_was(core: Core) -> None:
    _, state = folded(core, noise(3, 7, D))
    kept = state.clone()
    core.step(noise(3, D), state)
    assert torch.equal(state, kept)


def test_no_feature_depends_on_what_follows(core: Core) -> None:
    x = noise(2, 9, D).requires_grad_()
    y = core.unroll(x) * noise(2, 9, D)  # a norm's outputs have a constant sum
    for t in range(9):
        (gradient,) = torch.autograd.grad(y[:, t].sum(), x, retain_graph=True)
        assert not gradient[:, t + 1 :].any()
        assert gradient[:, t].any()


def test_padding_on_the_right_changes_nothing(core: Core) -> None:
    x = noise(2, 9, D)
    close(core.unroll(torch.cat([x, noise(2, 5, D)], 1))[:, :9], core.unroll(x))


def test_gradients_of_rows_are_those_of_steps(core: Core) -> None:
    _, state = folded(core, noise(2, 3, D))
    x, weights = noise(2, 9, D), noise(2, 9, D)
    found = []
    for way in (core.unroll, lambda x, s: folded(core, x, s)[0]):
        xs, ss = x.clone().requires_grad_(), state.detach().clone().requires_grad_()
        loss = (way(xs, ss) * weights).sum()
        found.append(torch.autograd.grad(loss, [xs, ss, *core.parameters()], allow_unused=True))
    for a, b in zip(*found, strict=True):
        close(torch.zeros(()) if a is None else a, torch.zeros(()) if b is None else b)


@pytest.mark.parametrize("k", [1, 2, 5])
def test_a_window_forgets_what_is_older_than_k(k: int) -> None:
    x = noise(2, 12, D).requires_grad_()
    y = Window(D, k).to(f64).unroll(x)
    (gradient,) = torch.autograd.grad(y[:, 10].sum(), x)
    seen = gradient.abs().sum((0, 2)) > 0
    assert seen.tolist() == [10 - k < t <= 10 for t in range(12)]


def test_a_window_tells_a_silent_input_from_one_never_seen() -> None:
    core = Window(D, 3).to(f64)
    x = noise(1, 1, D)
    silent = torch.cat([torch.zeros(1, 1, D, dtype=f64), x], 1)
    assert not torch.allclose(core.unroll(silent)[:, -1], core.unroll(x)[:, -1])


def test_a_window_has_at_least_one_input() -> None:
    with pytest.raises(SettingError, match="window is 0; expected 1 or more"):
        Window(D, 0)


def played(seed: int) -> StepInputs:
    """Two rows of six steps: five symbols, vectors of two numbers as actions."""
    g = torch.Generator().manual_seed(seed)
    return StepInputs(
        torch.randint(5, (2, 6), generator=g),
        torch.randn(2, 6, 2, dtype=f64, generator=g),
        torch.randn(2, 6, dtype=f64, generator=g),
        torch.tensor([[True] + [False] * 5] * 2),
    )


def test_the_memoryless_agent_sees_the_observation_and_nothing_else() -> None:
    memory = LearnedMemory(ObservationEncoder(Discrete(5), D), Window(D, 1)).to(f64)
    a, b = played(0), played(1)
    y = memory.unroll(a)
    assert torch.equal(memory.unroll(b._replace(observation=a.observation)), y)
    reached = [y[a.observation == o] for o in range(5)]
    for same in reached:
        torch.testing.assert_close(same, same[:1].expand_as(same), rtol=0, atol=1e-12)
    assert len(torch.unique(torch.cat([same[:1] for same in reached]), dim=0)) == len(a.observation.unique())
    features, state = memory.step(StepInputs(*(x[:, 3] for x in a)), memory.initial_state(2))
    assert state.shape == (2, 0)
    close(features, y[:, 3])


def test_the_memoryless_agent_gives_no_gradient_to_action_and_reward() -> None:
    for encoder, silent in (
        (ObservationEncoder(Discrete(5), D), True),
        (Encoder(Discrete(5), Vector(2), D), False),
    ):
        inputs = played(0)
        before = inputs.previous_action.requires_grad_(), inputs.previous_reward.requires_grad_()
        y = LearnedMemory(encoder, Window(D, 1)).to(f64).unroll(inputs)
        gradients = torch.autograd.grad(y.sum(), before, allow_unused=True)
        assert [g is None or not g.any() for g in gradients] == [silent, silent]


def test_encoder_and_core_agree_on_their_width() -> None:
    with pytest.raises(ValueError, match="the encoder gives 4 features and the core takes 8"):
        LearnedMemory(ObservationEncoder(Discrete(5), 4), Window(D, 1))


@pytest.mark.parametrize("context", [2, 5, 12])
def test_a_layer_of_attention_forgets_what_is_older_than_its_context(context: int) -> None:
    torch.manual_seed(0)
    x = noise(2, 12, D).requires_grad_()
    y = CausalTransformer(D, 1, 2, context).to(f64).unroll(x) * noise(2, 12, D)
    (gradient,) = torch.autograd.grad(y[:, 11].sum(), x)
    seen = gradient.abs().sum((0, 2)) > 0
    assert seen.tolist() == [11 - context < t <= 11 for t in range(12)]


def test_attention_in_blocks_is_attention_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """At once and in blocks of 7: from nothing, from a ring with 3 slots written, from a full one."""
    torch.manual_seed(0)
    core = CausalTransformer(D, 2, 2, 6).to(f64)
    x = noise(2, 40, D)
    states = [None, *(folded(core, noise(2, n, D))[1] for n in (3, 19))]
    whole = [core.unroll(x, s) for s in states]
    monkeypatch.setattr("turnwise.models.memory.attention.BLOCK", 7)
    for state, y in zip(states, whole, strict=True):
        close(core.unroll(x, state), y)


def test_lanes_of_different_ages_share_a_step() -> None:
    """The ring of lane 0 is full, that of lane 1 holds two positions, lane 2 is empty."""
    torch.manual_seed(0)
    core = CausalTransformer(D, 2, 2, 5).to(f64)
    xs = [noise(1, n, D) for n in (13, 2, 0)]
    states = [folded(core, x)[1] if x.shape[1] else torch.zeros(1, core.state_size, dtype=f64) for x in xs]
    following = noise(3, 9, D)
    together = core.unroll(following, torch.cat(states))
    close(together, folded(core, following, torch.cat(states))[0])
    for i, x in enumerate(xs):
        close(together[i : i + 1], core.unroll(torch.cat([x, following[i : i + 1]], 1))[:, x.shape[1] :])


def test_positions_far_from_the_start_are_as_good() -> None:
    """But for the clock only differences of positions matter: a row after 10,000 others is read as at 0."""
    torch.manual_seed(0)
    core = CausalTransformer(D, 1, 2, 5)
    torch.nn.init.zeros_(core.clock.weight)
    x = noise(1, 12, D).float()
    state = torch.zeros(1, core.state_size)
    late = state.clone()
    late[:, 0] = 10_000
    y, far = folded(core, x, state)[0], folded(core, x, late)[0]
    torch.testing.assert_close(y[:, 5:], far[:, 5:], rtol=0, atol=1e-5)


def test_the_clock_tells_when_a_row_is_read() -> None:
    """The same inputs give other features later in the episode, by no more than angles change."""
    torch.manual_seed(0)
    core = CausalTransformer(D, 1, 2, 5)
    x, state = noise(1, 1, D).float(), torch.zeros(3, core.state_size)
    state[:, 0] = torch.tensor([0.0, 7.0, 8.0])
    y = core.unroll(x.expand(3, -1, -1), state)
    assert (y[0] - y[1]).abs().max() > 1e-3 < (y[1] - y[2]).abs().max()


@pytest.mark.parametrize(("width", "heads", "context"), [(8, 3, 4), (4, 4, 4), (8, 2, 1)])
def test_a_transformer_that_cannot_be(width: int, heads: int, context: int) -> None:
    with pytest.raises(
        SettingError,
        match=r"width is \d+; expected a multiple of \d+, twice|context is 1; expected 2 or more",
    ):
        CausalTransformer(width, 1, heads, context)
