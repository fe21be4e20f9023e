"""Which settings are taken: refused where they are not, and read where they are."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import pytest

from benchmarks.cli import UserError
from benchmarks.harness import networks, optimizers
from benchmarks.harness.interface import Setting
from benchmarks.harness.networks import Batch
from benchmarks.harness.optimizers import REGISTRY
from benchmarks.harness.settings import TAKES, Experiment, from_stored, resolved


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"optimizer": "adam", "candidates": 30},  # though it is the default
            "adam takes no --candidates, which is for --optimizer cma-es, ",
        ),
        ({"optimizer": "sgd", "sigma": 0.1}, "sgd takes no --sigma"),
        ({"optimizer": "hybrid", "sigma": 0.1}, "hybrid takes no --sigma"),
        ({"optimizer": "snes", "learning_rate": 1.0}, "snes takes no --learning-rate"),
        ({"optimizer": "cma-es", "schedule": "cosine"}, "cma-es takes no --schedule"),
        ({"optimizer": "qiaso", "examples": 0.5}, "qiaso takes no --examples"),
        (
            {"optimizer": "qiaso", "without": "kl"},
            "qiaso takes no --without, which is for --optimizer qiaso-paper",
        ),
        (
            {"network": "cnn", "hidden": (128, 64)},
            "cnn takes no --hidden, which is for --network mlp$",
        ),
        (
            {"channels": (16, 32, 64)},
            "mlp takes no --channels, which is for --network cnn, cnn-global, cnn-deep",
        ),
        (
            {"initial_mean": 0.0},
            "xavier takes no --initial-mean, which is for --initialisation gaussian",
        ),
        ({"hidden": (), "network": "cnn-deep"}, "cnn-deep takes no --hidden"),
        (
            {"candidates": 8, "channels": (8,)},
            "adam takes no --candidates, .*; mlp takes no --channels",
        ),
    ],
)
def test_what_is_not_taken_is_refused(given, message):
    with pytest.raises(UserError, match=message):
        resolved(Experiment(**given))


@pytest.mark.parametrize("name", optimizers.NAMES)
def test_defaults_are_what_is_taken_and_need_no_second_look(name):
    experiment = resolved(Experiment(optimizer=name))
    named = {setting for entry in REGISTRY.values() for setting in entry.takes}
    made = {each for each in named if getattr(experiment, each) is not None}
    assert made == REGISTRY[name].takes.keys() - {"without"}
    assert experiment.hidden == (128, 64)
    assert experiment.channels is None
    assert resolved(experiment) == experiment


def test_a_setting_belongs_to_one_choice():
    named = [
        {name for each in takes.values() for name in each} for takes in TAKES.values()
    ]
    assert sum(map(len, named)) == len(set.union(*named))
    fields = {field.name: field.default for field in dataclasses.fields(Experiment)}
    assert all(fields[name] is None for name in set.union(*named))


def test_older_runs_are_read_without_what_they_did_not_take():
    stored = {
        "network": "cnn", "optimizer": "hybrid", "candidates": 2, "sigma": 0.02,
        "learning_rate": 0.003, "schedule": "cosine", "examples": 1.0, "data": "x",
        "hidden": [128, 64], "initial_mean": 0.0, "initial_spread": 0.05,
    }  # fmt: skip
    asked = Experiment(
        network="cnn", optimizer="hybrid", candidates=2, learning_rate=0.003
    )
    assert from_stored(stored) == resolved(asked)
    gaussian = from_stored({"optimizer": "qiaso", "learning_rate": 0.003})
    assert gaussian.directions == "gaussian"


class Read(Setting):
    """Numbers that know which of them were read."""

    names: ClassVar[set[str]] = set()

    def __getattribute__(self, name):
        if name in Setting._fields:
            Read.names.add(name)
        return super().__getattribute__(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", optimizers.NAMES)
def test_an_optimizer_reads_what_it_takes_and_nothing_else(name):
    takes = REGISTRY[name].takes
    directions = takes.get("directions") or "rademacher"
    setting = Read(0.1, "cosine", 0.1, 4, 0.5, 10, 100, directions=directions)
    network = networks.build("mlp", hidden=(3,))
    images = jax.ShapeDtypeStruct((8, 2, 2, 1), jnp.float32)
    params, stats = jax.eval_shape(network.init, jax.random.key(0), images)
    batch = Batch(images, jax.ShapeDtypeStruct((8,), jnp.int32))
    Read.names = set()
    with jax.numpy_rank_promotion("allow"):  # for evosax
        optimizer = optimizers.build(name, network, setting, params)
        state = jax.eval_shape(optimizer.init, jax.random.key(0), params, stats)
        jax.eval_shape(optimizer.step, state, batch)
    optimizers.sample_forwards(name, setting, False)
    renamed = {"learning_rate": "peak_learning_rate", "candidates": "num_candidates"}
    expected = {renamed.get(each, each) for each in takes}
    of_all = {"label_smoothing", "steps_per_epoch", "total_steps"}
    of_all |= {"candidate_batch_size", "rank"}
    assert Read.names - of_all == expected
    assert ("rank" in Read.names) == (directions == "low_rank")


@pytest.mark.parametrize("name", networks.NAMES)
def test_a_network_reads_what_it_takes_and_nothing_else(name):
    def shapes(**settings):
        network = networks.build(name, **settings)
        images = jnp.zeros((1, 16, 16, 1))
        return jax.eval_shape(network.init, jax.random.key(0), images)

    for setting, value in {"hidden": (5, 4), "channels": (5, 4)}.items():
        changed = shapes(**{setting: value}) != shapes()
        assert changed == (setting in TAKES["network"][name])


@pytest.mark.parametrize("name", ["xavier", "he", "gaussian"])
def test_an_initialisation_reads_what_it_takes_and_nothing_else(name):
    def drawn(*settings):
        return networks.initialiser(name, *settings)(jax.random.key(0), (3, 3))

    for setting in ((1.0, 0.05), (0.0, 1.0)):
        changed = bool(jnp.any(drawn(*setting) != drawn(0.0, 0.05)))
        assert changed == (name in TAKES["initialisation"])
