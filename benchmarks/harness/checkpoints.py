"""Checkpoints by orbax: written beside the training, checked when they are read.

A checkpoint holds the whole state, a digest of it, and the experiment it belongs to. On
reading, the newest one whose content has that digest and that experiment is taken; any
newer one is set aside, and a sentence says why.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from benchmarks.cli import UserError

KEPT = 2
# What orbax adds to the arrays: its descriptions and directories.
OVERHEAD = 128 * 1024


class Checkpoints:
    """The checkpoints of one run; a context manager."""

    def __init__(self, folder: Path, experiment: dict[str, Any]):
        self.folder = folder
        self.experiment = experiment
        self._last_saved: int | None = None
        # What it logs from its threads is raised here too, and said once.
        logging.getLogger("absl").setLevel(logging.CRITICAL)
        self._manager = ocp.CheckpointManager(
            folder.resolve(),
            options=ocp.CheckpointManagerOptions(
                preservation_policy=ocp.checkpoint_managers.LatestN(KEPT),
                cleanup_tmp_directories=True,
            ),
        )

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, _: Any, error: BaseException | None, __: Any) -> None:
        try:
            self._manager.close()
        except Exception as close_error:
            if error is None:
                raise self._failure(close_error) from close_error

    def save(self, epoch: int, state: Any) -> None:
        """Starts to write ``state``, unless it has been; raises earlier failures."""
        if epoch == self._last_saved:
            return
        # On the host before training goes on: nothing can change under the writer.
        state = jax.tree.map(np.array, jax.device_get(state))
        about = {"experiment": self.experiment, "digest": digest(state)}
        self._require_space(state)
        with self._in_a_sentence():
            self._manager.save(
                epoch,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(state),
                    about=ocp.args.JsonSave(about),
                ),
                force=True,
            )
        self._last_saved = epoch

    def finish(self) -> None:
        """Waits until everything is written."""
        with self._in_a_sentence():
            self._manager.wait_until_finished()
            self._manager.check_for_errors()

    def epochs(self) -> list[int]:
        """The epochs that have a checkpoint, in ascending order."""
        return sorted(self._manager.all_steps())

    def restore(self, like: Any, say: Callable[[str], None]) -> tuple[int, Any] | None:
        """The newest usable checkpoint's epoch and state; ``None`` if there is none."""
        for epoch in reversed(self.epochs()):
            try:
                state = self._read(epoch, like)
            except UserError as error:
                aside = self._set_aside(epoch)
                say(f"checkpoint of epoch {epoch} refused: {error}; moved to {aside}")
                continue
            self._last_saved = epoch
            return epoch, state
        return None

    def _read(self, epoch: int, like: Any) -> Any:
        try:
            about = self._manager.restore(
                epoch, args=ocp.args.Composite(about=ocp.args.JsonRestore())
            )["about"]
            experiment, expected = about["experiment"], about["digest"]
        except Exception as error:
            raise UserError(
                f"its description cannot be read ({first_line(error)})"
            ) from error
        if experiment != self.experiment:
            raise UserError("it belongs to another experiment")
        try:
            state = self._manager.restore(
                epoch,
                args=ocp.args.Composite(
                    state=ocp.args.StandardRestore(
                        jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
                    )
                ),
            )["state"]
        except Exception as error:
            raise UserError(
                f"it is damaged, or of another version ({first_line(error)})"
            ) from error
        if digest(jax.device_get(state)) != expected:
            raise UserError("it is damaged (its content does not have its digest)")
        return state

    def _set_aside(self, epoch: int) -> Path:
        source = self.folder / str(epoch)
        target = self.folder.parent / "refused-checkpoints" / str(epoch)
        shutil.rmtree(target, ignore_errors=True)
        target.parent.mkdir(exist_ok=True)
        source.rename(target)
        self._manager.reload()
        return target

    def _require_space(self, state: Any) -> None:
        # Beforehand: a write that fails halfway prints one traceback per array. What is
        # still being written takes its space first (orbax would wait for it too).
        self.finish()
        needed = sum(leaf.nbytes for leaf in jax.tree.leaves(state)) + OVERHEAD
        free = shutil.disk_usage(self.folder).free
        if free < needed:
            raise self._failure(
                OSError(f"no space left on device: {needed:,} bytes, {free:,} free")
            )

    @contextlib.contextmanager
    def _in_a_sentence(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # orbax and tensorstore raise many kinds
            raise self._failure(error) from error

    def _failure(self, error: Exception) -> UserError:
        return UserError(
            f"cannot write a checkpoint to {self.folder} ({first_line(error)}); whole "
            f"checkpoints there: epochs {whole_epochs(self.folder) or 'none'}; "
            "--resume continues from the last of them"
        )


def whole_epochs(folder: Path) -> list[int]:
    """The epochs whose checkpoint was completed, read from the folder's names."""
    return sorted(int(path.name) for path in folder.glob("*") if path.name.isdigit())


def digest(tree: Any) -> str:
    """A hash of the structure of ``tree`` and of every bit in it."""
    leaves, structure = jax.tree.flatten(tree)
    result = hashlib.blake2b(str(structure).encode(), digest_size=16)
    for leaf in leaves:
        array = np.ascontiguousarray(leaf)
        result.update(f"{array.dtype}{array.shape}".encode())
        result.update(array.tobytes())
    return result.hexdigest()


def first_line(error: BaseException) -> str:
    """The kind of ``error`` and the first line of what it says."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:200]}" if text else type(error).__name__
