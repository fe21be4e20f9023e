"""``python -m benchmarks.directions``."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.cli import UserError
from benchmarks.directions import __main__ as study
from benchmarks.directions import cartpole, kinds, report, tasks, training, variance


def test_the_variance_of_dense_directions_is_known():
    # N - 1 of signs and N + 1 of normal numbers, for N weights. Fixed keys; the bounds
    # are four standard errors.
    shape, size = (8, 4), 32
    for kind, expected in (("rademacher", size - 1), ("gaussian", size + 1)):
        row = variance.row(kind, shape, 8192)
        assert abs(row["variance"] - expected) < 4 * row["standard_error"]
        assert row["standard_error"] < 0.03 * size


def test_the_variance_of_rank_one_is_known():
    # Of signs as of dense ones; of normal factors E aaᵀ|a|² = (m + 2) I, likewise b.
    m, n = 12, 8
    known = {"rank 1": m * n - 1, "rank 1, normal": (m + 2) * (n + 2) - 1}
    for name, expected in known.items():
        row = variance.row(kinds.EVERY[name], (m, n), 16384)
        assert abs(row["variance"] - expected) < 4 * row["standard_error"]
        assert row["standard_error"] < 0.05 * expected


def gymnasium_step(state, right):
    """CartPole-v1's, in float64, as gymnasium writes it."""
    x, x_dot, theta, theta_dot = state
    force = 10.0 if right else -10.0
    cos, sin = np.cos(theta), np.sin(theta)
    temp = (force + 0.05 * theta_dot**2 * sin) / 1.1
    theta_acc = (9.8 * sin - cos * temp) / (0.5 * (4.0 / 3.0 - 0.1 * cos**2 / 1.1))
    x_acc = temp - 0.05 * theta_acc * cos / 1.1
    return np.array(
        [
            x + 0.02 * x_dot,
            x_dot + 0.02 * x_acc,
            theta + 0.02 * theta_dot,
            theta_dot + 0.02 * theta_acc,
        ]
    )


def test_the_pole_moves_as_in_gymnasium():
    rng = np.random.default_rng(0)
    for _ in range(20):
        state, right = rng.uniform(-1, 1, 4) * [2, 2, 0.2, 2], rng.random() < 0.5
        found = cartpole.moved(jnp.asarray(state, jnp.float32), jnp.array(right))
        np.testing.assert_allclose(found, gymnasium_step(state, right), atol=1e-5)


def test_a_return_is_the_steps_until_the_pole_falls():
    always_left = {
        "kernel_1": jnp.zeros((4, 16)),
        "bias_1": jnp.zeros(16),
        "kernel_2": jnp.zeros((16, 2)),
        "bias_2": jnp.array([1.0, 0.0]),
    }
    first = np.array([[0.0, 0, 0.01, 0], [0.03, 0.0, -0.04, 0.02]])
    expected = []
    for state in first:
        steps = 0
        while abs(state[0]) <= 2.4 and abs(state[2]) <= 12 * np.pi / 180:
            state, steps = gymnasium_step(state, False), steps + 1
        expected.append(steps)
    found = cartpole.mean_return(always_left, jnp.asarray(first, jnp.float32))
    assert float(found) == np.mean(expected)


def test_a_policy_that_balances_gets_every_step():
    # The sign of angle + 0.5 · its speed, by two hidden units of a small slope.
    kernel_1 = jnp.zeros((4, 16)).at[2, 0].set(0.1).at[3, 0].set(0.05)
    kernel_2 = jnp.zeros((16, 2)).at[0].set(jnp.array([-1.0, 1.0]))
    params = {
        "kernel_1": kernel_1,
        "bias_1": jnp.zeros(16),
        "kernel_2": kernel_2,
        "bias_2": jnp.zeros(2),
    }
    starts = cartpole.starts(jax.random.key(0), 8)
    assert float(cartpole.mean_return(params, starts)) == cartpole.STEPS


def test_the_best_rate_is_a_finite_one():
    values = {0.1: 3.0, 0.2: float("nan"), 0.3: 1.0}
    assert training.best(values, higher_is_better=True) == 0.1
    assert training.best(values, higher_is_better=False) == 0.3


def test_values_between_epochs_are_interpolated():
    assert training.at([0, 2, 4], [10, 50, 60], 3) == 55
    assert training.at([0, 2, 4], [10, 50, 60], 4) == 60


def test_a_task_is_trained_and_its_rate_is_chosen():
    task = tasks.rugged(steps=40)._replace(
        loss=lambda x, _: jnp.sum(x**2),
        value=lambda x: jnp.sum(x**2),
        rates=(1e-9, 1.0),
    )
    row = training.row(task, "rademacher", seeds=2)
    assert row["rate"] == 1.0
    assert [rate for rate, _ in row["trials"]] == [1e-9, 1.0]
    still = row["trials"][0][1]
    assert max(row["values"]) < 0.5 * still
    assert row["values"][0] != row["values"][1]
    assert row["seconds_per_step"] > 0


def test_tables_are_in_units_of_signs_and_at_equal_seconds():
    settings = {
        "draws": 10, "dataset": "mnist", "seeds": 1, "candidates": 30,
        "batch_size": 128, "rate": 3e-3, "epochs": 2,
    }  # fmt: skip
    cell = {"variance": 100.0, "standard_error": 1.0}
    content = {
        "variance": {"8 × 4": {"signs": cell, "rank 1": cell | {"variance": 110.0}}},
        "accuracy": {
            "signs": {"seconds": [0, 4, 8], "accuracy": [[10, 50, 70]]},
            "rank 1": {"seconds": [0, 1, 2], "accuracy": [[10, 48, 68]]},
        },
    }
    text = report.ranks(settings, content)
    assert "| signs | 1.000 ± 0.010 | 70.00 | 30.00 | 4.00 |" in text
    assert "| rank 1 | 1.100 ± 0.010 | 68.00 | 68.00 | 1.00 |" in text
    row = {"values": [1.0, None, 3.0], "seconds_per_step": 2e-3, "rate": 0.01}
    text = report.default({"seeds": 3}, {"mlp": {"gaussian": row}})
    assert "| mlp, gaussian | validation accuracy, % | 2.00 ± 1.41 | 2 | 0.01 |" in text
    small = row | {"values": [1e-5, 3e-5]}
    text = report.default({"seeds": 2}, {"rastrigin": {"gaussian": small}})
    assert "| rastrigin, gaussian | value | 2.0e-05 ± 1.4e-05 |" in text
    text = report.default({"seeds": 1}, {"mlp": {"gaussian": row | {"values": [None]}}})
    assert "| mlp, gaussian | validation accuracy, % | diverged |" in text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tasks": ()}, "--tasks must name at least one"),
        ({"draws": 1}, "--draws must be at least 2, got 1"),
        ({"epochs": 0}, "--epochs must be at least 1, got 0"),
        ({"rate": 0.0}, "--rate must be positive, got 0.0"),
    ],
)
def test_impossible_commands_are_refused(settings, message, tmp_path):
    command = study.Command(output=tmp_path / "no", **settings)
    with pytest.raises(UserError, match=re.escape(message)):
        study.main(command)
    assert not (tmp_path / "no").exists()


@pytest.mark.nightly
@pytest.mark.slow
def test_a_whole_run_leaves_both_tables(tmp_path):
    command = study.Command(output=tmp_path, tasks=("cartpole", "rastrigin"))
    study.main(study.dataclasses.replace(command, quick=True))
    content = json.loads((tmp_path / "results.json").read_text())
    assert {"date", "revision", "versions", "machine", "command"} <= content.keys()
    assert list(content["tasks"]) == ["cartpole", "rastrigin"]
    for rows in content["tasks"].values():
        assert list(rows) == list(kinds.DEFAULTS)
    for run in content["accuracy"].values():
        assert len(run["seconds"]) == len(run["accuracy"][0]) == 2
    for name in ("table_ranks.md", "table_default.md"):
        assert "benchmarks.directions" in (tmp_path / name).read_text()
