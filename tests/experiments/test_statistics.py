"""Numbers about seeds against printed tables and published examples."""

import math

import pytest

from spvit_experiments.statistics import mean_and_deviation, paired, steps_to, t_quantile

# Two-sided quantiles of Student's t, as statistical tables print them: degrees of freedom, 90 %, 95 %, 99 %.
TABLE = [
    (1, 6.314, 12.706, 63.657),
    (2, 2.920, 4.303, 9.925),
    (3, 2.353, 3.182, 5.841),
    (4, 2.132, 2.776, 4.604),
    (5, 2.015, 2.571, 4.032),
    (9, 1.833, 2.262, 3.250),
    (10, 1.812, 2.228, 3.169),
    (30, 1.697, 2.042, 2.750),
    (120, 1.658, 1.980, 2.617),
]
# Additional hours of sleep of ten patients with two drugs (Student 1908). R's t.test(paired = TRUE) gives the interval.
FIRST = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
SECOND = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]


@pytest.mark.parametrize("degrees, quantiles", [(row[0], list(row[1:])) for row in TABLE])
def test_quantiles_of_t_are_those_of_the_tables(degrees, quantiles):
    assert [round(t_quantile(c, degrees), 3) for c in (0.90, 0.95, 0.99)] == quantiles


def test_a_paired_difference_is_that_of_the_textbook():
    found = paired(FIRST, SECOND)
    assert (found.pairs, round(found.mean, 6)) == (10, -1.58)
    assert (round(found.low, 7), round(found.high, 7)) == (-2.4598858, -0.7001142)


def test_the_order_of_the_pairs_is_of_no_account_but_their_pairing_is():
    shuffled = paired(FIRST[::-1], SECOND[::-1])
    assert shuffled.low == pytest.approx(paired(FIRST, SECOND).low)
    assert paired(FIRST, SECOND[::-1]).high > 0


def test_one_pair_has_a_difference_and_no_interval():
    found = paired([3.0], [1.0])
    assert found.mean == 2 and math.isnan(found.low) and math.isnan(found.high)
    with pytest.raises(ValueError):
        paired([1.0, 2.0], [1.0])


def test_mean_and_deviation_by_hand():
    assert mean_and_deviation([2.0, 4.0, 9.0]) == (5.0, pytest.approx(math.sqrt(26 / 2)))
    assert math.isnan(mean_and_deviation([2.0])[1])


@pytest.mark.parametrize("level, step", [(50, 20), (50.1, 30), (10, 10), (80, math.inf)])
def test_steps_to_is_the_first_step_at_the_level(level, step):
    assert steps_to([(10, 20.0), (20, 50.0), (30, 70.0), (40, 40.0)], level) == step
