"""Goal: intervals say how sure a mean is, and a regression is seen.
Method: known distributions; rows at and beyond their bounds."""

import numpy as np
import pytest

import intervals


def test_interval_of_equal_values_is_their_value():
    assert intervals.interval(np.full((2, 64), 0.25)) == (0.25, 0.25, 0.25)


def test_interval_covers_the_mean_as_often_as_it_says():
    random = np.random.default_rng(7)
    covered = 0
    for seed in range(200):
        _, low, high = intervals.interval(random.exponential(1.0, (4, 256)), seed)
        covered += low <= 1.0 <= high
    assert 0.86 <= covered / 200 <= 1.0


def test_dependent_neighbours_widen_the_interval():
    random = np.random.default_rng(8)
    free = random.exponential(1.0, (4, 256))
    bound = np.repeat(random.exponential(1.0, (4, 8)), 32, axis=1)
    width = [high - low for _, low, high in map(intervals.interval, (free, bound))]
    assert width[1] > 3 * width[0]


def test_too_few_positions_are_refused():
    with pytest.raises(ValueError, match="at least 32"):
        intervals.interval(np.zeros((4, 31)))


def row(**fields):
    return {"system": "kvtier", "budget": 128, "text": "prose", "kl": 0.01, "agree": 0.95, **fields}


BOUND = {"system": "kvtier", "budget": 128, "text": "prose", "kl_max": 0.01, "agree_min": 0.95}


def test_a_row_at_its_bound_passes():
    assert intervals.regressions([row()], [BOUND]) == []


@pytest.mark.parametrize(
    "fields, word",
    [({"kl": 0.0101}, "KL"), ({"kl": float("nan")}, "KL"), ({"agree": 0.94}, "agreement")],
)
def test_a_worse_row_is_named(fields, word):
    assert word in intervals.regressions([row(**fields)], [BOUND])[0]


def test_a_row_that_is_missing_is_named():
    assert "not measured" in intervals.regressions([row(budget=64)], [BOUND])[0]
