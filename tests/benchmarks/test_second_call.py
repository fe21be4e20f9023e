import json

import numpy as np
import pytest

from benchmarks import second_call

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("way", second_call.WAYS)
def test_functions_are_of_their_own(way):
    shifts = np.array([[1.0, 0.0], [0.0, 3.0]])
    funs = [second_call.WAYS[way](shift)["fun"] for shift in shifts]
    assert [float(fun(np.zeros(2, np.float32))) for fun in funs] == [1, 9]


def test_the_command(tmp_path, capsys):
    command = second_call.Command(
        output=tmp_path, dimensions=(2,), calls=2, evaluations=60
    )
    second_call.main(command)
    text = (tmp_path / "table.md").read_text()
    assert text in capsys.readouterr().out
    content = json.loads((tmp_path / "results.json").read_text())
    assert [run["way"] for run in content["runs"]] == ["in JAX", "outside of JAX"]
    for run in content["runs"]:
        assert len(run["seconds"]) == 3
        assert min(run["seconds"]) > 0
    first, *others = content["runs"][0]["seconds"] = [6.0, 0.5, 1.5]
    assert f"| 2-D, in JAX | {first:.2f} | {sum(others) / 2:.3f} | 6 |" in (
        second_call.page(content)
    )


def test_stored_tables_are_what_the_stored_numbers_give():
    stored = sorted(second_call.Command().output.rglob("results.json"))
    assert len(stored) == 2
    for path in stored:
        content = json.loads(path.read_text())
        assert second_call.page(content) == (path.parent / "table.md").read_text()
