"""Crosses of settings, of which a part is for the night."""

import itertools
from collections.abc import Iterable, Mapping
from typing import Any

import pytest


def crossed(*axes: Mapping[str, Any] | Iterable[Any]) -> list[Any]:
    """All combinations of a value of each of three axes or more, for ``parametrize``.

    As many by day as it takes that each two values of different axes meet, which is
    where things go wrong that go well alone; the others by night.

    Args:
      axes: values, by what they are called if that is not as they are written.
    """
    named = [
        axis if isinstance(axis, Mapping) else {str(x): x for x in axis}
        for axis in axes
    ]
    shortest = min(map(len, named))
    assert len(named) >= 3

    def case(chosen):
        by_day = sum(place for place, _ in chosen) % shortest == 0
        names = [name for _, name in chosen]
        values = [axis[name] for axis, name in zip(named, names, strict=True)]
        marks = () if by_day else pytest.mark.nightly
        return pytest.param(*values, id="-".join(names), marks=marks)

    return [case(chosen) for chosen in itertools.product(*map(enumerate, named))]
