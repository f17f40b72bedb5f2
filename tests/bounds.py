"""Bounds for counts of random events, by a stated probability of a false alarm."""

import math

import numpy as np

FALSE_ALARM = 1e-6


def assert_counts(counts, draws, probability):
    """Asserts that counts are sums of so many independent draws in [0, 1] of a mean.

    The bound is Bernstein's inequality, which holds for every n. No draw in [0, 1] varies more than
    an event of the same probability.
    """
    counts = np.asarray(counts, np.float64)
    probability = np.asarray(probability, np.float64)
    share = math.log(2 * counts.size / FALSE_ALARM)
    variance = draws * probability * (1 - probability)
    bound = share / 3 + np.sqrt(share**2 / 9 + 2 * share * variance)
    off = np.abs(counts - draws * probability)
    assert (off <= bound).all(), f"off by up to {off.max()}, where {bound} is allowed"
    assert (bound < draws * np.maximum(probability, 1 - probability)).all(), "says nothing"
