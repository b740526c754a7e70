"""Runs of one seed as pairs: they share cases, fresh weights and patches, so less of their difference is chance."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

_MOST_EXACT = 16
"""Pairs of which every choice of signs is tried: 65,536."""
_RANDOM = 100_000
"""Choices of signs that are tried of more pairs."""


@dataclass(frozen=True)
class Paired:
    """A two-sided test of whether the differences of pairs are symmetric about 0, by flipping their signs."""

    n: int
    mean: float
    """Of the differences."""
    p: float
    exact: bool
    """Whether p is from every choice of signs, as it is up to 16 pairs, not from 100,000 random ones."""

    @property
    def smallest_p(self) -> float:
        """Return the least p that so many pairs can give: all differences on one side, and no random choice as far."""
        return min(1.0, max(2.0 ** (1 - self.n), 0.0 if self.exact else 2 / (_RANDOM + 1)))


def sign_flip(differences: Sequence[float]) -> Paired:
    """Test differences of pairs, first minus second; one of 0 stays in.

    Raises:
        ValueError: for fewer than 2 differences.
    """
    if len(differences) < 2:
        raise ValueError(f"got {len(differences)} differences; expected at least 2")
    exact = len(differences) <= _MOST_EXACT
    tested = stats.permutation_test(
        (np.asarray(differences, dtype=float),),
        np.mean,
        permutation_type="samples",
        vectorized=True,
        n_resamples=np.inf if exact else _RANDOM,
        rng=np.random.default_rng(0),
    )
    return Paired(len(differences), statistics.fmean(differences), float(tested.pvalue), exact)
