"""That what is left to the night misses no pair of settings by day."""

import itertools

import pytest
from crosses import crossed


@pytest.mark.parametrize("lengths", [(5, 4, 6), (4, 2, 4), (3, 3, 3), (2, 3, 2, 5)])
def test_any_two_values_meet_by_day(lengths):
    axes = [range(length) for length in lengths]
    cases = crossed(*axes)
    assert {case.values for case in cases} == set(itertools.product(*axes))
    by_day = [case.values for case in cases if not case.marks]
    assert len(by_day) < len(cases)
    for i, j in itertools.combinations(range(len(axes)), 2):
        met = {(values[i], values[j]) for values in by_day}
        assert met == set(itertools.product(axes[i], axes[j]))
