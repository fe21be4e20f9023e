"""The command: every optimizer, resuming after any end, and faults."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
import tyro

from benchmarks import train
from benchmarks.cli import UserError
from benchmarks.harness import checkpoints, convolution, data, records, settings
from benchmarks.harness.optimizers import NAMES, REGISTRY
from benchmarks.harness.settings import Command

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
DIGITS = ("--dataset", "digits", "--hidden", "8")


@pytest.fixture(autouse=True)
def _evosax_promotes_ranks():
    with jax.numpy_rank_promotion("allow"):
        yield


def arguments(optimizer, *more):
    entry = REGISTRY[optimizer]
    option = "--" + entry.tunes.replace("_", "-")
    return (*DIGITS, "--optimizer", optimizer, option, str(entry.grid[-2]), *more)


def run(capsys, folder, *args):
    """The command in this process: exit status, and what it says."""
    try:
        status = train.main(tyro.cli(Command, args=(*args, "--output", str(folder))))
    except (UserError, OSError) as error:
        return 1, capsys.readouterr().err + f"error: {error}"
    return status, capsys.readouterr().err


def history(folder):
    """The metrics without the times."""
    lines = records.read(folder / "metrics.jsonl")
    return [{k: v for k, v in line.items() if k != "timing"} for line in lines]


def final_digest(folder, epoch):
    about = json.loads((folder / f"checkpoints/{epoch}/about/metadata").read_text())
    return about["digest"]


@pytest.mark.parametrize("optimizer", NAMES)
def test_every_optimizer_trains(optimizer, tmp_path, capsys):
    args = arguments(optimizer, "--epochs", "2", "--batch-size", "32", "--limit", "320")
    if optimizer == "cma-es":  # an eigendecomposition of N × N numbers in every step
        args = (*args, "--hidden", "2")
    status, said = run(capsys, tmp_path / "run", *args)
    assert status == 0, said
    lines = history(tmp_path / "run")
    assert [line["epoch"] for line in lines] == [1, 2]
    if optimizer != "qiaso-paper":  # which is not known to train a network
        assert lines[1]["train_loss"] < lines[0]["train_loss"]
    assert (tmp_path / "run" / "curves.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("optimizer", "network"),
    [("node-qiaso", "cnn"), ("hybrid-muon", "cnn-global"), ("qiaso", "cnn-deep")],
)
def test_convolutions_train_with_and_without_gradients(
    optimizer, network, tmp_path, capsys, monkeypatch
):
    # Small images would fit the cache all at once.
    monkeypatch.setattr(convolution, "PATCHES", 4 * 9 * 64)
    args = arguments(
        optimizer, "--epochs", "2", "--batch-size", "32", "--limit", "64",
        "--network", network, "--channels", "2", "3", "--candidates", "4",
    )  # fmt: skip
    args = tuple(each for each in args if each not in ("--hidden", "8"))
    status, said = run(capsys, tmp_path / "run", *args)
    assert status == 0, said


ABLATION = (
    *DIGITS, "--optimizer", "qiaso-paper", "--epochs", "2", "--batch-size", "8",
    "--limit", "160", "--sigma", "0.1",
)  # fmt: skip


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """The run from which the ablations take something away."""
    folder = tmp_path_factory.mktemp("full") / "run"
    assert train.main(tyro.cli(Command, args=(*ABLATION, "--output", str(folder)))) == 0
    return history(folder)


@pytest.mark.parametrize("mechanism", ["superposition", "kl", "tunnelling"])
def test_an_ablation_changes_the_run_and_one_candidate_never_moves(
    mechanism, full, tmp_path, capsys
):
    assert run(capsys, tmp_path / "less", *ABLATION, "--without", mechanism)[0] == 0
    less = history(tmp_path / "less")
    assert full[-1]["test_loss"] != less[-1]["test_loss"]
    if mechanism == "superposition":
        assert less[0]["test_loss"] == less[-1]["test_loss"]
        assert less[0]["sample_forwards"] * 30 == full[0]["sample_forwards"]


def test_default_numbers_are_the_tuned_ones():
    chosen = json.loads(settings.RATES.read_text())["chosen"]
    for name in NAMES:
        experiment = settings.resolved(settings.Experiment(optimizer=name))
        assert getattr(experiment, REGISTRY[name].tunes) == chosen[name]


def test_seeds_side_by_side_are_those_alone(tmp_path, capsys):
    args = arguments("adam", "--epochs", "2")
    run(capsys, tmp_path / "both", *args, "--seeds", "2")
    run(capsys, tmp_path / "second", *args, "--first-seed", "1")
    both, second = history(tmp_path / "both"), history(tmp_path / "second")
    np.testing.assert_allclose(
        both[-1]["train_loss"][1], second[-1]["train_loss"][0], rtol=1e-4
    )
    assert both[-1]["train_loss"][0] != both[-1]["train_loss"][1]


def test_budget_cuts_the_epochs(tmp_path, capsys):
    # One epoch is 10 steps of 128 examples at 3 sample-forwards.
    args = arguments("sgd", "--epochs", "9", "--budget", "8000")
    assert run(capsys, tmp_path / "run", *args)[0] == 0
    lines = history(tmp_path / "run")
    assert [line["sample_forwards"] for line in lines] == [3840, 7680]
    status, said = run(capsys, tmp_path / "none", *arguments("sgd", "--budget", "9"))
    assert status == 1
    assert "does not pay for one epoch of sgd, which costs 3,840" in said


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Three epochs of Adam."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    args = (*arguments("adam", "--epochs", "3"), "--output", str(folder))
    assert train.main(tyro.cli(Command, args=args)) == 0
    return folder


@pytest.fixture
def finished(trained, tmp_path):
    """A copy of it."""
    return shutil.copytree(trained, tmp_path / "run")


def test_config_says_what_produced_the_run(finished):
    config = json.loads((finished / "config.json").read_text())
    assert config["experiment"]["data"] == data.load("digits").fingerprint
    assert config["versions"]["jax"] == jax.__version__
    assert config["num_params"] == 64 * 8 + 8 + 8 * 10 + 10
    assert {"date", "revision", "machine"} <= config.keys()


def test_tensorboard_files_on_request(tmp_path, capsys):
    args = arguments("adam", "--epochs", "1", "--tensorboard")
    assert run(capsys, tmp_path / "run", *args)[0] == 0
    assert list((tmp_path / "run/tensorboard").glob("events.*"))


def start(folder, *args):
    """The command in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.train", *args, "--output", str(folder)]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)


def wait_for_epochs(folder, process, epochs):
    deadline = time.monotonic() + 240
    while len(records.read(folder / "metrics.jsonl")) < epochs:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize(
    "optimizer", ["hybrid", pytest.param("qiaso", marks=pytest.mark.nightly)]
)
def test_kill_and_resume_is_as_if_nothing_had_happened(optimizer, tmp_path, capsys):
    epochs = 40
    args = arguments(optimizer, "--epochs", str(epochs), "--checkpoint-every", "3")
    process = start(tmp_path / "killed", *args)
    wait_for_epochs(
        tmp_path / "killed", process, random.Random(optimizer).randint(4, 20)
    )
    while not checkpoints.whole_epochs(tmp_path / "killed/checkpoints"):
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert len(history(tmp_path / "killed")) < epochs
    status, said = run(capsys, tmp_path / "killed", *args, "--resume")
    assert status == 0, said
    assert "resumed after epoch" in said

    assert run(capsys, tmp_path / "whole", *args)[0] == 0
    assert history(tmp_path / "killed") == history(tmp_path / "whole")
    digests = [final_digest(tmp_path / name, epochs) for name in ("killed", "whole")]
    assert digests[0] == digests[1]


def test_sigterm_saves_and_says_so(tmp_path, capsys):
    args = arguments("adam", "--epochs", "100000", "--checkpoint-every", "100000")
    process = start(tmp_path / "run", *args)
    wait_for_epochs(tmp_path / "run", process, 3)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 128 + signal.SIGTERM
    (saved,) = [int(path.name) for path in (tmp_path / "run/checkpoints").iterdir()]
    assert f"epoch {saved} is saved: continue with --resume" in said
    assert "Traceback" not in said
    assert len(history(tmp_path / "run")) == saved


def test_resume_refuses_other_settings(finished, capsys):
    before = (finished / "metrics.jsonl").read_text()
    args = arguments("adam", "--epochs", "2", "--batch-size", "64", "--resume")
    status, said = run(capsys, finished, *args)
    assert status == 1
    assert "batch_size (was 128, now 64), epochs (was 3, now 2)" in said
    assert (finished / "metrics.jsonl").read_text() == before


def test_a_finished_run_is_not_overwritten(finished, capsys):
    status, said = run(capsys, finished, *arguments("adam", "--epochs", "3"))
    assert status == 1
    assert "holds a run: pass --resume, or another --output" in said


def test_nothing_to_resume(tmp_path, capsys):
    status, said = run(capsys, tmp_path / "run", *arguments("adam", "--resume"))
    assert status == 1
    assert "nothing to resume" in said


def test_lost_metrics_are_noticed(finished, capsys):
    metrics = finished / "metrics.jsonl"
    metrics.write_text("".join(metrics.read_text().splitlines(keepends=True)[:1]))
    args = arguments("adam", "--epochs", "3", "--resume")
    status, said = run(capsys, finished, *args)
    assert status == 1
    assert "does not hold every epoch up to the checkpoint's, 3" in said


def test_nan_ends_the_run_and_keeps_what_was_before(tmp_path, capsys, monkeypatch):
    measure = train.measure

    def spoiled(program, state, epoch, loss, seconds):
        loss = loss * np.nan if epoch == 3 else loss
        return measure(program, state, epoch, loss, seconds)

    monkeypatch.setattr(train, "measure", spoiled)
    args = arguments("adam", "--epochs", "5")
    status, said = run(capsys, tmp_path / "run", *args)
    assert status == 1
    assert "train loss is not finite in epoch 3 (seeds [0])" in said
    assert len(history(tmp_path / "run")) == 2
    assert (tmp_path / "run/curves.png").exists()
    monkeypatch.undo()
    status, said = run(capsys, tmp_path / "run", *args, "--resume")
    assert status == 0
    assert "resumed after epoch 2" in said


def test_divergence_is_said_plainly(tmp_path, capsys):
    args = (*DIGITS, "--optimizer", "sgd", "--learning-rate", "1e30", "--epochs", "2")
    status, said = run(capsys, tmp_path / "run", *args)
    assert status == 1
    assert "is not finite in epoch 1 (seeds [0]): the run diverged" in said


@pytest.fixture
def small_disk(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("mounting a tmpfs needs root")
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("cannot mount a tmpfs here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_full_disk(small_disk, tmp_path, capsys):
    # One checkpoint is 400 kB.
    args = ("--dataset", "digits", "--learning-rate", "1e-3", "--seeds", "2")
    status, said = run(capsys, small_disk / "run", *args)
    assert status == 1
    assert said.count("error:") == 1
    assert "no space left on device" in said
    assert "Traceback" not in said
    lines = history(small_disk / "run")
    assert lines
    # With room again, the run goes on from the checkpoint that was whole.
    subprocess.run(["cp", "-r", small_disk / "run", tmp_path / "moved"], check=True)
    status, said = run(capsys, tmp_path / "moved", *args, "--resume")
    assert status == 0
    assert "resumed after epoch" in said
    assert history(tmp_path / "moved")[: len(lines)] == lines


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--optimizer", "sgd", "--candidates", "30"), "sgd takes no --candidates"),
        (("--batch-size", "9999"), "9999 is more than the 1294 training examples"),
        (("--checkpoint-every", "0"), "--checkpoint-every must be at least 1"),
        (
            ("--network", "cnn", "--channels", "4", "4", "4", "4"),
            "--channels names too many convolutions: each pooling halves the image",
        ),
    ],
)
def test_numbers_that_do_not_fit(args, message, tmp_path, capsys):
    status, said = run(capsys, tmp_path / "run", "--dataset", "digits", *args)
    assert status == 1
    assert message in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--zoom", "1"), r"--zoom must be in \[0, 1\), got 1.0"),
        (("--label-smoothing", "1"), r"--label-smoothing must be in \[0, 1\), got 1.0"),
        (("--rotate", "-3"), "--rotate must be at least 0, got -3.0"),
        (("--channels",), "--channels must name at least one"),
        (("--channels", "8", "0"), r"--channels must be at least 1, got \(8, 0\)"),
        (("--validation", "1"), r"--validation must be in \[0, 1\), got 1.0"),
        (("--limit", "0"), "--limit must be at least 1, got 0"),
    ],
)
def test_settings_that_do_not_fit(args, message):
    with pytest.raises(UserError, match=message):
        tyro.cli(Command, args=(*DIGITS, *args))


@pytest.mark.parametrize("option", ["--epochs", "--seeds", "--batch-size", "--sigma"])
def test_zero_is_refused(option):
    with pytest.raises(UserError, match=f"{option} must be"):
        tyro.cli(Command, args=(*DIGITS, option, "0"))
