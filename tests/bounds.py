"""Bounds for counts of random events, by a stated probability of a false alarm."""

import numpy as np

from dropax.testing.masks import count_bound

FALSE_ALARM = 1e-6


def assert_counts(counts, draws, probability):
    """Asserts that counts are sums of so many independent draws in [0, 1] of a mean.

    The bound is Bernstein's inequality, which holds for every n.
    """
    counts = np.asarray(counts, np.float64)
    probability = np.asarray(probability, np.float64)
    bound = count_bound(draws, probability, FALSE_ALARM / counts.size)
    off = np.abs(counts - draws * probability)
    assert (off <= bound).all(), f"off by up to {off.max()}, where {bound} is allowed"
    assert (bound < draws * np.maximum(probability, 1 - probability)).all(), "says nothing"
