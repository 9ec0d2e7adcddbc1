"""How far several judges of the same things agree."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np


def agreeing(unit: Sequence[float]) -> float:
    """Probability that two of the judges of an item, drawn at random, say the same."""
    m = len(unit)
    return sum(n * (n - 1) for n in Counter(unit).values()) / (m * (m - 1))


def nominal_alpha(units: Sequence[Sequence[float]]) -> float | None:
    """Krippendorff's alpha of values that are equal or not: 1 is perfect agreement, 0 that of chance.

    alpha = 1 - D_o / D_e over the n values of units u with m_u >= 2 of them, n_uc of which are c:
    D_o = 1/n sum_u (m_u^2 - sum_c n_uc^2) / (m_u - 1),   D_e = (n^2 - sum_c n_c^2) / (n (n - 1)).
    None if all values are equal, for then chance alone agrees. Units of one value are left out.
    K. Krippendorff, "Computing Krippendorff's alpha-reliability" (2011), section C.
    """
    units = [unit for unit in units if len(unit) > 1]
    n = sum(map(len, units))
    totals = Counter(value for unit in units for value in unit)
    if len(totals) < 2:
        return None
    observed = math.fsum(
        (len(unit) ** 2 - sum(c * c for c in Counter(unit).values())) / (len(unit) - 1) for unit in units
    )
    expected = (n * n - sum(c * c for c in totals.values())) / (n - 1)
    return 1 - observed / expected


def interval_alpha(units: Sequence[Sequence[float]]) -> float | None:
    """Krippendorff's alpha of numbers, two of which differ by (c - k)^2.

    As in `nominal_alpha` with sums over ordered pairs of values, for which
    sum_{i,j} (x_i - x_j)^2 = 2 (m sum_i x_i^2 - (sum_i x_i)^2) = 2 m^2 var(x).
    Krippendorff (2011), section D with the interval difference.
    """
    units = [unit for unit in units if len(unit) > 1]
    values = np.array([x for unit in units for x in unit], dtype=np.float64)
    if not len(values) or values.min() == values.max():
        return None
    n, scale = len(values), np.abs(values).max()
    observed = math.fsum(len(unit) ** 2 * np.var(np.array(unit) / scale) / (len(unit) - 1) for unit in units)
    expected = n * n * np.var(values / scale) / (n - 1)
    return float(1 - observed / expected)
