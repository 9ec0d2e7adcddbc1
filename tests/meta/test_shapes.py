"""Shapes that stand in signatures are checked while tests run."""

from __future__ import annotations

import pytest
import torch
from jaxtyping import TypeCheckError

from turnwise.losses.value import squared_error


def test_a_wrong_shape_and_a_wrong_kind_are_refused() -> None:
    """[2, 3] beside [2, 4], and whole numbers where there are values."""
    with pytest.raises(TypeCheckError, match="targets"):
        squared_error(torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(TypeCheckError, match="values"):
        squared_error(torch.zeros(2, 3, dtype=torch.long), torch.zeros(2, 3))
