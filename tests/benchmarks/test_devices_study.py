"""``python -m benchmarks.devices``: what is counted, and what is forecast."""

import math

import pytest

from benchmarks.devices import __main__ as study
from benchmarks.devices import forecast, worker

PROGRAM = """
ENTRY %main {
  %a = f32[64]{0} all-reduce(%x), replica_groups={{0,1}}
  %b = (f32[784,128]{1,0}, f32[128]{0}) all-reduce(%y, %z), replica_groups={{0,1}}
  %c = f32[8]{0} add(%a, %a)
  %d = (u32[2]{0}, u32[2]{0}) collective-permute-start(%k)
}
"""


def test_what_crosses_is_counted():
    found = worker.crossing(PROGRAM)
    assert found == {"collectives": 3, "bytes": 4 * (64 + 784 * 128 + 128 + 4)}


def test_the_forecast():
    work = forecast.Work("w", seconds=1.0, pairs=100, size=3e8)
    assert work.on(1) == (1.0, 0.0)
    own, crossing = work.on(8)
    assert own == pytest.approx(13 / 100)
    assert crossing == pytest.approx(2 * 10e-6 * 3 + 2 * 7 / 8 * 3e8 / 300e9)
    own, crossing = work.on(1024)  # most devices have no pair
    assert own == pytest.approx(1 / 100)
    assert crossing == pytest.approx(2 * 10e-6 * 10 + 2 * 1023 / 1024 * 3e8 / 50e9)
    rows = forecast.rows([work])
    assert [row[2] for row in rows] == ["100", "13", "2", "1"]
    assert float(rows[-1][-1]) == pytest.approx(1 / (own + crossing) / 1024, abs=0.005)


def test_works_are_read_from_results():
    mlp, transformer = forecast.works(study.RESULTS)
    weights = 784 * 128 + 128 + 128 * 64 + 64 + 64 * 10 + 10
    assert mlp.size == 4 * weights
    assert mlp.pairs == 128
    assert transformer.pairs == 500
    assert math.isclose(transformer.size, 398697472)


@pytest.mark.nightly
@pytest.mark.slow
def test_a_process_on_two_devices():
    row = study.worked("low_rank", 2, 1)
    assert len(row["seconds"]) == 1
    weights = 784 * 128 + 128 + 128 * 64 + 64 + 64 * 10 + 10
    assert row["bytes"] == 4 * (weights + worker.CANDIDATES)


def test_the_table():
    compiled = {n: {"collectives": 2, "bytes": 40, "flops": 80 / n} for n in (1, 2, 8)}
    row = {
        "seconds": {1: [0.01], 2: [0.005]},
        "efficiency": 1.0,
        "compiled": compiled,
    }
    text = study.as_table({"node": row})
    assert "| 10 | 5 | 1.00 | 40 in 2 | 0.125 |" in text
