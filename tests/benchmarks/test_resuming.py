"""``--resume`` alone, interrupts, and what ``--help`` says."""

import dataclasses
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import train
from benchmarks.cli import UserError
from benchmarks.harness import records, resuming
from benchmarks.harness.settings import Command, Experiment, resolved

ROOT = Path(__file__).parents[2]
SETTINGS = resolved(
    Experiment(
        dataset="digits", optimizer="qiaso-paper", without="kl", hidden=(8,), sigma=0.1,
        epochs=2, limit=160, batch_size=80,
    )
)  # fmt: skip


@pytest.fixture
def parse(monkeypatch):
    def parse(*args):
        monkeypatch.setattr(sys, "argv", ["train", *map(str, args)])
        return resuming.parse(Command, prog="train")

    return parse


def stored(folder, **options):
    """The folder of a run under ``SETTINGS``."""
    asked = Command(SETTINGS, output=folder, **options)
    experiment = vars(SETTINGS) | {"data": "fingerprint"}
    folder.mkdir()
    records.write_json(folder / "config.json", {"experiment": experiment})
    resuming.write_options(folder, asked)
    return folder


def test_the_stored_settings_are_the_defaults(tmp_path, parse):
    folder = stored(
        tmp_path / "run", checkpoint_every=7, tensorboard=True, data_dir=tmp_path
    )
    for args in ([], ["--epochs", 2], ["--without", "kl"], ["--hidden", 8]):
        command = parse("--resume", "--output", folder, *args)
        assert command.experiment == SETTINGS
        assert command.resume
        assert command.folder == folder
        assert (command.checkpoint_every, command.tensorboard) == (7, True)
        assert command.data_dir == tmp_path
    command = parse("--checkpoint-every", 3, f"--output={folder}", "--resume")
    assert command.checkpoint_every == 3


def test_without_an_output_it_is_the_folder_that_the_settings_name(
    tmp_path, parse, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    stored(tmp_path / "runs/digits-mlp-qiaso-paper")
    args = ("--dataset", "digits", "--optimizer", "qiaso-paper", "--resume")
    assert parse(*args).experiment == SETTINGS


@pytest.mark.parametrize(
    ("args", "named"),
    [
        # 10 is the default of a command line that resumes nothing.
        (["--epochs", 10], r"epochs \(was 2, now 10\)$"),
        (
            ["--hidden", 8, 8, "--sigma", 0.2],
            r"hidden \(was \(8,\), now \(8, 8\)\), sigma \(was 0.1, now 0.2\)$",
        ),
        (["--learning-rate", 0.1], r"learning_rate \(was None, now 0.1\)$"),
    ],
)
def test_other_settings_are_refused_by_name(args, named, tmp_path, parse):
    folder = stored(tmp_path / "run")
    with pytest.raises(UserError, match=f"cannot resume .*{named}"):
        parse("--resume", "--output", folder, *args)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "nothing to resume: .* holds no run"),
        ("{", "is damaged or of another version"),
        ("[]", "is damaged or of another version"),
        ('{"experiment": {"data": "x", "new": 1}}', "is damaged or of another version"),
        ('{"experiment": {"data": "x", "epochs": 0}}', "--epochs must be at least 1"),
    ],
)
def test_what_is_not_a_run_is_said_in_a_sentence(content, said, tmp_path, parse):
    if content:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError, match=said):
        parse("--resume", "--output", tmp_path)


def test_a_run_that_was_stored_without_options_has_their_defaults(tmp_path, parse):
    folder = stored(tmp_path / "run", checkpoint_every=7)
    (folder / "options.json").unlink()
    assert parse("--resume", "--output", folder) == Command(
        SETTINGS, output=folder, resume=True
    )


@pytest.mark.parametrize("content", ["{", "[]", '{"new": 1}', '{"data_dir": 3}'])
def test_damaged_options_are_said_in_a_sentence(content, tmp_path, parse):
    folder = stored(tmp_path / "run")
    (folder / "options.json").write_text(content)
    with pytest.raises(UserError, match="is damaged or of another version"):
        parse("--resume", "--output", folder)


def command(*args):
    return [sys.executable, "-m", *map(str, args)]


@pytest.mark.slow
def test_resume_alone_ends_as_if_nothing_had_happened(tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    experiment = dataclasses.replace(SETTINGS, epochs=3)
    assert train.main(Command(experiment, output=whole, checkpoint_every=2)) == 0
    assert resuming.as_command(whole) == Command(experiment, checkpoint_every=2)
    shutil.copytree(whole, cut)
    # As after a kill in the third epoch.
    shutil.rmtree(cut / "checkpoints/3")
    resume = command("benchmarks.train", "--resume", "--output", cut)
    said = subprocess.run(resume, cwd=ROOT, check=True, capture_output=True, text=True)
    assert "resumed after epoch 2" in said.stderr
    losses = [
        [line["train_loss"] for line in records.read(folder / "metrics.jsonl")]
        for folder in (whole, cut)
    ]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 3


TRAIN = (
    "train", "--dataset", "digits", "--network", "cnn-deep", "--seeds", 8,
    "--channels", 16, 16, 32, 32, "--optimizer", "hybrid", "--candidates", 4,
)  # fmt: skip
TUNE = ("tune", "--optimizers", "cma-es")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("args", "seconds"),
    [(TRAIN, 0.5), (TRAIN, 2), (TRAIN, 5), (TUNE, 2)],
    ids=["imports", "reads", "compiles", "another"],
)
def test_an_interrupt_ends_a_command_in_a_line(args, seconds, tmp_path):
    name, *args = args
    process = subprocess.Popen(
        command(f"benchmarks.{name}", *args, "--output", tmp_path / "output"),
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 128 + signal.SIGINT
    assert said == "interrupted\n"


@pytest.mark.slow
def test_a_second_interrupt_leaves_metrics_that_can_be_read(tmp_path):
    folder = tmp_path / "run"
    train_digits = command(
        "benchmarks.train", "--dataset", "digits", "--epochs", 100_000,
        "--output", folder,
    )  # fmt: skip
    process = subprocess.Popen(
        train_digits, cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    while len(records.read(folder / "metrics.jsonl")) < 3:
        assert process.poll() is None
        time.sleep(0.01)
    for _ in range(2):
        process.send_signal(signal.SIGINT)
        time.sleep(0.01)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 128 + signal.SIGINT
    assert "Traceback" not in said
    epochs = [line["epoch"] for line in records.read(folder / "metrics.jsonl")]
    assert epochs == list(range(1, len(epochs) + 1))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["train", "tune", "rastrigin", "node_space.scans"])
def test_help_names_a_command_that_can_be_typed(name):
    help_of = command(f"benchmarks.{name}", "--help")
    said = subprocess.run(help_of, cwd=ROOT, capture_output=True, text=True, check=True)
    assert said.stdout.startswith(f"usage: python -m benchmarks.{name} [-h]")
