import json

import numpy as np
import pytest

from benchmarks.asynchronous import __main__ as study
from benchmarks.asynchronous.simulator import HANG, LOG, ellipsoid, faulty


def test_what_lies_ready_is_found_once(tmp_path):
    (tmp_path / HANG).touch()
    x = np.ones(3)
    values = [faulty(x, 0.0, str(tmp_path), 0.0) for _ in range(2)]
    assert not (tmp_path / HANG).exists()
    assert values == [ellipsoid(x, 0.0)] * 2 == [pytest.approx(111.0)] * 2
    assert [float(line) for line in (tmp_path / LOG).read_text().split()] == values


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.filterwarnings("default")  # of sockets of processes that were killed
def test_on_a_cluster_nothing_is_lost(tmp_path):
    study.main(
        study.Command(
            output=tmp_path, shares=(1.0, 0.7), seeds=1, seconds=0.005, evaluations=200
        )
    )
    content = json.loads((tmp_path / "results.json").read_text())
    found = content["faults"]
    assert found["killed"] == found["missing"] == 1
    assert found["faults_without_effect"] == []
    assert found["evaluations"] == 200
    # That which hangs may not have ended.
    assert found["values"] in (199, 200)
    assert found["value_of_result"] <= found["least_value"]
    assert all(run["value"] <= 1e-2 for run in content["runs"])
    assert "| share 0.7 |" in (tmp_path / "table.md").read_text()
