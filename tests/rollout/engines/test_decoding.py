"""What is sampled from, and samples from it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from turnwise.rollout.engines import decoding
from turnwise.rollout.engines.decoding import Decoding, distribution, draw, sample
from turnwise.run.errors import SettingError

LOGITS = torch.tensor([[0.15, 0.5, 0.1, 0.25]], dtype=torch.float64).log()
ALMOST_ONE = 1 - 2.0**-53
"""the largest number that a generator of uniforms in [0, 1) returns"""


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        (Decoding(), [0.15, 0.5, 0.1, 0.25]),
        (Decoding(temperature=0.0), [0, 1, 0, 0]),
        (Decoding(temperature=0.5), [0.0225 / 0.345, 0.25 / 0.345, 0.01 / 0.345, 0.0625 / 0.345]),
        (Decoding(top_k=2), [0, 2 / 3, 0, 1 / 3]),
        (Decoding(top_k=9), [0.15, 0.5, 0.1, 0.25]),
        (Decoding(top_p=0.45), [0, 1, 0, 0]),
        (Decoding(top_p=0.6), [0, 2 / 3, 0, 1 / 3]),
        (Decoding(top_p=1.0), [0.15, 0.5, 0.1, 0.25]),
        (Decoding(top_k=3, top_p=0.6), [0, 2 / 3, 0, 1 / 3]),
        (Decoding(temperature=0.5, top_p=0.8), [0, 0.8, 0, 0.2]),
    ],
)
def test_temperature_then_top_k_then_top_p(how: Decoding, expected: list[float]) -> None:
    """Probabilities .5 .25 .15 .1 under each rule.

    Temperature 1/2 squares them: .25 .0625 .0225 .01, whose sum is .345. Top-k 2 and top-p .6 keep .5 and
    .25 (.5 alone is less than .6): 2/3 and 1/3. Top-k 3 first makes the best .5/.9 = .556, still less than
    .6. At temperature 1/2 the best has .25/.345 = .72, the two best .91 >= .8: .25/.3125 = .8 and .2.
    """
    torch.testing.assert_close(distribution(LOGITS, how)[0], torch.tensor(expected, dtype=torch.float64))


def test_ties() -> None:
    """Greedy takes the first of equals; top-k keeps all that tie with the k-th."""
    tied = torch.tensor([[1.0, 3.0, 3.0, 0.0]])
    assert distribution(tied, Decoding(temperature=0.0)).tolist() == [[0, 1, 0, 0]]
    torch.testing.assert_close(
        distribution(tied, Decoding(top_k=1)), torch.tensor([[0, 0.5, 0.5, 0]], dtype=torch.float64)
    )


@pytest.mark.parametrize(
    "how", [Decoding(0.7), Decoding(1.3, top_k=17), Decoding(0.9, top_p=0.8), Decoding(1.1, 23, 0.7)]
)
def test_same_as_the_warpers_of_transformers(how: Decoding) -> None:
    from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    logits = 3 * torch.randn(50, 200, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    warped = TemperatureLogitsWarper(how.temperature)(None, logits)
    if how.top_k is not None:
        warped = TopKLogitsWarper(how.top_k)(None, warped)
    if how.top_p is not None:
        warped = TopPLogitsWarper(how.top_p)(None, warped)
    p = distribution(logits, how)
    torch.testing.assert_close(p, warped.softmax(-1), rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(p.sum(-1), torch.ones(50, dtype=torch.float64), rtol=0, atol=1e-14)


def test_half_precision_logits_give_probabilities_that_sum_to_one() -> None:
    logits = torch.randn(8, 5000, generator=torch.Generator().manual_seed(0)).bfloat16()
    total = distribution(logits, Decoding(top_p=0.95)).sum(-1)
    torch.testing.assert_close(total, torch.ones(8, dtype=torch.float64), rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    ("u", "token"),
    [(0.0, 1), (0.2499, 1), (0.25, 3), (0.4999, 3), (0.5, 4), (ALMOST_ONE, 4)],
)
def test_one_uniform_number_decides_one_token(u: float, token: int) -> None:
    """Probabilities 0 1/4 0 1/4 1/2 0 cut [0, 1) into [0, 1/4), [1/4, 1/2), [1/2, 1)."""
    p = torch.tensor([[0, 0.25, 0, 0.25, 0.5, 0]], dtype=torch.float64)
    assert sample(p, torch.tensor([u], dtype=torch.float64)).tolist() == [token]


def test_what_has_no_probability_is_never_drawn() -> None:
    """Also at the ends of [0, 1), and where rounding makes the sum a little more or less than 1."""
    rng = np.random.default_rng(0)
    p = rng.random((500, 97)) * (rng.random((500, 97)) < 0.3)
    p /= p.sum(-1, keepdims=True)
    rows = torch.as_tensor(p)
    for u in (np.zeros(500), np.full(500, 2.0**-53), np.full(500, ALMOST_ONE), rng.random(500)):
        drawn = sample(rows, torch.as_tensor(u)).numpy()
        assert (p[np.arange(500), drawn] > 0).all()


@pytest.mark.parametrize("vocab", [40, 256, 900, 40_000])
@pytest.mark.parametrize("how", [Decoding(), Decoding(0.6), Decoding(0.0), Decoding(1.3, top_k=7, top_p=0.8)])
def test_draws_are_samples_of_the_distribution(
    how: Decoding, vocab: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same tokens as by way of all probabilities, and their logarithms, in blocks and not.

    Uniforms go from end to end of [0, 1); some tokens, and whole blocks, have no probability.
    """
    monkeypatch.setattr(decoding, "WIDE", 200)
    monkeypatch.setattr(decoding, "AT_ONCE", 2000)  # rows by the piece
    logits = 3 * torch.randn(9, vocab, generator=torch.Generator().manual_seed(0))
    logits[:, ::7] = -torch.inf
    logits[:, 256:600] = -torch.inf
    u = torch.tensor([0.0, 2.0**-53, 0.1, 0.3, 0.5, 0.7, 0.9, 1 - 1e-9, ALMOST_ONE], dtype=torch.float64)
    tokens, logp = draw(logits, how, u)
    p = distribution(logits, how)
    assert tokens.tolist() == sample(p, u).tolist()
    expected = p.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
    assert (expected > 0).all()
    torch.testing.assert_close(logp, expected.log(), rtol=0, atol=1e-13)


@pytest.mark.parametrize("how", [Decoding(), Decoding(0.6), Decoding(top_k=3), Decoding(0.8, top_p=0.85)])
def test_frequencies(how: Decoding) -> None:
    """Pearson's chi-square of 20,000 draws; a right sampler fails once in a million seeds."""
    logits = torch.tensor([0.3, -0.4, 1.2, 0.9, -2.0, 0.0], dtype=torch.float64)
    p = distribution(logits.unsqueeze(0), how)[0]
    u = torch.as_tensor(np.random.default_rng(3).random(20_000))
    counts = np.bincount(sample(p.expand(20_000, -1), u).numpy(), minlength=6)
    support = p.numpy() > 0
    assert counts[~support].sum() == 0
    expected = 20_000 * p.numpy()[support]
    statistic = ((counts[support] - expected) ** 2 / expected).sum()
    assert statistic < stats.chi2.ppf(1 - 1e-6, support.sum() - 1)


@pytest.mark.parametrize(
    ("wrong", "name"),
    [({"temperature": -0.1}, "temperature"), ({"top_k": 0}, "top_k"), ({"top_p": 0.0}, "top_p")],
)
def test_impossible_decoding_is_refused(wrong: dict[str, float], name: str) -> None:
    with pytest.raises(SettingError, match=name):
        Decoding(**wrong)
