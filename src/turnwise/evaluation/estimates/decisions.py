"""Weighted means of what follows each decision: what the weighted per-decision estimates are made of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from turnwise.evaluation.estimates.pointwise import Pointwise, pointwise


@dataclass(frozen=True)
class Weighted:
    """sum_k (sum_b w_bk x_bk / sum_b w_bk), and how its terms depend on how often each episode is counted."""

    weights: np.ndarray
    """[B, A], ratios up to each decision, in any unit of each decision"""
    follows: np.ndarray
    """[B, A], what follows each decision, discounted; 0 behind an episode's end"""

    def terms(self, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(terms [R, A], mean weights [R, A]) for counts [R, B]; a term is nan where nothing has weight."""
        share = counts / counts.sum(1, keepdims=True)
        means = share @ self.weights
        with np.errstate(invalid="ignore"):
            return share @ (self.weights * self.follows) / means, means

    def influences(self, terms: np.ndarray, means: np.ndarray, some: slice = slice(None)) -> np.ndarray:
        """[R, B], sum over the decisions `some` of w_bk (x_bk - term_k) / mean w_k."""
        slopes = np.zeros_like(means)
        np.divide(1.0, means, out=slopes, where=means > 0)
        pull = np.where(means > 0, terms, 0.0) * slopes
        weights, follows = self.weights[:, some], self.follows[:, some]
        return slopes[:, some] @ (weights * follows).T - pull[:, some] @ weights.T

    def estimate(self) -> Pointwise:
        """The sum of the terms; nan if one of them is."""

        def again(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            terms, means = self.terms(counts)
            values = terms.sum(1)
            return values, values[:, None] + self.influences(terms, means)

        return pointwise(again, len(self.weights))
