import json
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import qiaso_jax
from benchmarks.cli import UserError
from benchmarks.harness import data, networks, pipeline
from benchmarks.harness.networks import Batch
from benchmarks.node_signal import __main__ as node_signal
from benchmarks.node_signal import measure, models, report

pytestmark = pytest.mark.slow

KERNELS = ["Dense_0", "Dense_1", "Dense_2"]


@pytest.fixture(scope="module")
def splits():
    return pipeline.split(data.load("digits"), validation=0.1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A whole run of the command on little data."""
    folder = tmp_path_factory.mktemp("node_signal")
    command = node_signal.Command(
        output=folder,
        dataset="digits",
        networks=("mlp",),
        pairs=(4, 16, 256),
        keys=6,
        batch_size=64,
        train_steps=60,
    )
    node_signal.main(command)
    return folder


def selections(folder, stage):
    results = json.loads((folder / "results.json").read_text())
    assert {"date", "revision", "versions", "machine", "command"} <= results.keys()
    return results["networks"]["mlp"]["stages"][stage]["selections"]


@pytest.mark.nightly
@pytest.mark.parametrize("stage", node_signal.STAGES)
def test_cosine_rises_with_pairs(folder, stage):
    rows = selections(folder, stage)
    assert len(rows) == 6
    for name, kernels in rows.items():
        assert list(kernels) == ["mean over kernels", *KERNELS]
        mean = kernels["mean over kernels"]
        assert np.all(np.isfinite(mean["cosine"] + mean["standard_error"]))
        noise = math.hypot(mean["standard_error"][0], mean["standard_error"][-1])
        if not name.startswith("uniform"):  # whose draws alone are as noisy
            assert mean["cosine"][0] + 3 * noise < mean["cosine"][-1] < 1
        # Beyond what the draw of examples allows there is nothing to rise to.
        assert mean["cosine"][-1] < mean["limit"] + 3 * noise
        if name.startswith("all examples"):
            np.testing.assert_allclose(mean["limit"], 1, atol=1e-3)


@pytest.mark.nightly
def test_training_makes_the_losses_tell(folder):
    def limit(stage, name):
        return selections(folder, stage)[name]["mean over kernels"]["limit"]

    trained = limit("trained", "telling examples, reactive nodes")
    assert trained > 0.05 + limit("trained", "uniform examples, reactive nodes")
    assert trained > 0.05 + limit("initial", "telling examples, reactive nodes")


@pytest.mark.nightly
def test_reactive_nodes_alone_tell_more(folder):
    rows = selections(folder, "initial")
    for path in KERNELS[:2]:  # those before a ReLU
        alone = rows["all examples, reactive nodes"][path]["cosine"][1]
        assert alone > 0.02 + rows["all examples, all nodes"][path]["cosine"][1]


@pytest.mark.nightly
def test_table_and_figure(folder):
    table = (folder / "table.md").read_text()
    rows = [line for line in table.splitlines() if line.startswith("| ")]
    assert len(rows) == 2 * 2 * (2 + 6)
    assert "± nan" not in table
    assert (folder / "cosine.png").read_bytes().startswith(b"\x89PNG")


def test_stored_table_is_what_the_stored_numbers_give():
    folder = node_signal.Command().output
    results = json.loads((folder / "results.json").read_text())
    text = report.page(results["settings"], results["networks"])
    assert text == (folder / "table.md").read_text()


def test_estimate_is_that_of_node_qiaso(splits):
    network = networks.build("mlp", hidden=(8,))
    params, stats = models.trained(network, splits, 30, 3e-2)
    batch = models.draw_batch(jax.random.key(0), splits, 32)
    meter, key = measure.Meter(network, 0.02), jax.random.key(3)
    ones = jnp.ones(32)

    tx = qiaso_jax.node_qiaso(
        8, optimizer=optax.sgd(1.0), batch_argnames=("batch", "weights"), key=key
    )
    updates, _ = jax.jit(
        lambda params, **batch: tx.update(
            None, tx.init(params), params, value_fn=meter.losses, **batch
        )
    )(params, batch_stats=stats, batch=batch, weights=ones)

    draw_key = jax.random.split(key, 3)[1]
    losses = meter.losses(params, stats, batch, ones)
    telling = measure.Selection("telling", True)
    rows, weights = measure.draw_examples(telling, draw_key, losses)
    assert len(rows) == 8
    found = meter.estimate(
        4,
        True,
        key,
        params,
        batch_stats=stats,
        batch=Batch(batch.images[rows], batch.labels[rows]),
        weights=weights,
    )
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(updates), strict=True):
        np.testing.assert_allclose(a, -b, rtol=1e-3, atol=1e-5)


def test_cost_counts_every_pass():
    costs = [each.forwards(16) for each in measure.SELECTIONS[::2]]
    assert costs == [33, 33 / 4, 1 + 33 / 4]


def test_patches_hold_the_image():
    images = jnp.arange(2 * 9 * 8 * 3.0).reshape(2, 9, 8, 3)
    found = models.patches(images)
    assert found.shape == (2, 16, 12)
    np.testing.assert_array_equal(found[1, 6], images[1, 2:4, 4:6].reshape(-1))


def test_every_kernel_of_the_transformer_is_a_site(splits):
    network = models.build("transformer")
    params, stats = models.trained(network, splits, 0, 1e-3)
    batch = models.draw_batch(jax.random.key(0), splits, 8)
    sites = qiaso_jax.node_sites(
        measure.Meter(network, 0.02).losses,
        params,
        batch_stats=stats,
        batch=batch,
        weights=jnp.ones(8),
        batch_argnames=("batch", "weights"),
    )
    reactive = {
        each.path.removesuffix("/kernel"): each.reactive < each.nodes
        for each in sites
        if each.path.endswith("/kernel")
    }
    assert reactive.keys() == measure.per_kernel_cosine(params, params).keys()
    assert [path for path, some in reactive.items() if some] == ["up"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pairs": (0, 2)}, "--pairs must be at least 1, got (0, 2)"),
        ({"cnn_pairs": ()}, "--cnn-pairs must name at least one"),
        ({"keys": 1}, "--keys must be at least 2, got 1"),
        ({"batch_size": 3}, "--batch-size must be at least 4, got 3"),
        (
            {"batch_size": 9999},
            "--batch-size must be at most the 1294 training examples",
        ),
        ({"sigma": 0.0}, "--sigma must be positive, got 0.0"),
        ({"networks": ()}, "--networks must name at least one"),
    ],
)
def test_impossible_commands_are_refused(settings, message, tmp_path):
    command = node_signal.Command(output=tmp_path / "no", dataset="digits", **settings)
    with pytest.raises(UserError, match=re.escape(message)):
        node_signal.main(command)
    assert not (tmp_path / "no").exists()
