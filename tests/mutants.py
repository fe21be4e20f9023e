"""Mutation testing: which small faults in a module do its tests find?

```bash
python tests/mutants.py qiaso_jax/collapse.py --tests tests/test_collapse.py --number 8
```

draws faults with a seed, writes each into a copy of this repository and runs the tests,
the slow ones last. One line for each fault; a timeout counts as found.
"""

import argparse
import ast
import contextlib
import importlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent

PAIRS = [
    (ast.Add, ast.Sub),
    (ast.Mult, ast.Div),
    (ast.BitAnd, ast.BitOr),
    (ast.LShift, ast.RShift),
    (ast.And, ast.Or),
    (ast.Lt, ast.LtE),
    (ast.Gt, ast.GtE),
    (ast.Eq, ast.NotEq),
    (ast.Is, ast.IsNot),
    (ast.In, ast.NotIn),
]
OPERATORS = dict(PAIRS) | {new: old for old, new in PAIRS}
OPERATORS |= {ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult, ast.Pow: ast.Mult}
OPERATORS |= {ast.BitXor: ast.BitAnd}
FUNCTIONS = {"min": "max", "minimum": "maximum", "argmin": "argmax", "any": "all"}
FUNCTIONS |= {new: old for old, new in FUNCTIONS.items()} | {"sum": "mean"}


class Mutant(NamedTuple):
    """A node of a file, and what stands in its place."""

    path: Path
    node: ast.expr | ast.stmt
    new: ast.AST

    def __str__(self) -> str:
        old, new = ast.unparse(self.node), ast.unparse(self.new)
        return f"{self.path}:{self.node.lineno}  {old}  ->  {new}"

    def applied(self, source: str) -> str:
        """The file with the fault in it."""
        lines = source.encode().splitlines(keepends=True)
        starts = [0]
        for line in lines:
            starts.append(starts[-1] + len(line))
        begin = starts[self.node.lineno - 1] + self.node.col_offset
        end = starts[(self.node.end_lineno or 0) - 1] + (self.node.end_col_offset or 0)
        text = ast.unparse(self.new)
        text = f"({text})" if isinstance(self.new, ast.expr) else text
        return (
            source.encode()[:begin] + text.encode() + source.encode()[end:]
        ).decode()


def variants(node: ast.AST) -> Iterator[ast.AST]:
    """The faults that can be made of one node."""
    match node:
        case ast.BinOp(left, op, right) if type(op) in OPERATORS:
            yield ast.BinOp(left, OPERATORS[type(op)](), right)
        case ast.BoolOp(op, values):
            yield ast.BoolOp(OPERATORS[type(op)](), values)
        case ast.Compare(left, [op], right):
            yield ast.Compare(left, [OPERATORS[type(op)]()], right)
        case ast.UnaryOp(ast.Not() | ast.USub() | ast.Invert(), operand):
            yield operand
        case ast.IfExp(test, body, orelse):
            yield ast.IfExp(test, orelse, body)
        case ast.Constant(bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(int(value) | float(value)):
            yield ast.Constant(value + 1)
            if value == 1:
                yield ast.Constant(0)
        case ast.Call(func, args, keywords):
            for i in range(len(keywords)):
                yield ast.Call(func, args, keywords[:i] + keywords[i + 1 :])
            match func:
                case ast.Attribute(value, name) if name in FUNCTIONS:
                    swapped = ast.Attribute(value, FUNCTIONS[name], ast.Load())
                    yield ast.Call(swapped, args, keywords)
                case ast.Attribute(_, "where") if len(args) == 3:
                    yield ast.Call(func, [args[0], args[2], args[1]], keywords)
        case ast.Return(ast.expr() as value) if not isinstance(value, ast.Constant):
            yield ast.Return(ast.Constant(None))


def nodes(node: ast.AST) -> Iterator[ast.AST]:
    """What runs: no annotations, and not the words of an error."""
    yield node
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not isinstance(
                child, ast.Raise | ast.JoinedStr
            ):
                yield from nodes(child)


def mutants(path: Path) -> list[Mutant]:
    """All faults of a file, by its path from the root."""
    tree = ast.parse((ROOT / path).read_text())
    return [Mutant(path, n, new) for n in nodes(tree) for new in variants(n)]


def outcome(copy: Path, arguments: list[str], timeout: float) -> str:
    """Of pytest in a process of its own, which shares what has been imported."""
    child = os.fork()
    if not child:
        import pytest

        os.chdir(copy)
        sys.path.insert(0, str(copy))
        with Path(os.devnull).open("w") as nothing, contextlib.redirect_stdout(nothing):
            status = pytest.main(["-x", "-q", "-n", "0", "--no-header", *arguments])
        os._exit(status)
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            # 5: no tests are collected, as where none is slow.
            return (
                "survived" if os.waitstatus_to_exitcode(status) in (0, 5) else "killed"
            )
        time.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "timeout"


def tried(copy: Path, tests: list[str], timeout: float) -> str:
    """The outcome of the fast tests and, where these find nothing, of the slow ones."""
    for marked in ("not slow", "slow"):
        arguments = ["-p", "no:cacheprovider", "--hypothesis-seed=0", "-m", marked]
        found = outcome(copy, [*arguments, *tests], timeout)
        if found != "survived":
            return found
    return "survived"


def main() -> None:
    """Prints a line for each fault while it runs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--tests", nargs="+", required=True)
    parser.add_argument("--number", type=int, default=8)
    parser.add_argument("--seed", type=int, default=18)
    parser.add_argument("--timeout", type=float, default=240.0)
    options = parser.parse_args()
    possible = [mutant for path in sorted(options.files) for mutant in mutants(path)]
    number = min(options.number, len(possible))
    drawn = random.Random(options.seed).sample(possible, number)
    print(f"{number} of {len(possible)} faults, seed {options.seed}", flush=True)
    sys.dont_write_bytecode = True
    for name in ("jax", "jax.numpy", "optax", "flax.linen", "flax.nnx", "scipy.stats"):
        importlib.import_module(name)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        ignored = shutil.ignore_patterns(
            ".git", "__pycache__", "results", ".hypothesis"
        )
        shutil.copytree(ROOT, copy, ignore=ignored)
        if tried(copy, options.tests, options.timeout) != "survived":
            sys.exit("The tests must pass, and in time, while the files are unchanged.")
        for mutant in drawn:
            file = copy / mutant.path
            source = file.read_text()
            file.write_text(mutant.applied(source))
            start = time.monotonic()
            found = tried(copy, options.tests, options.timeout)
            print(f"{found} {time.monotonic() - start:.0f}s {mutant}", flush=True)
            file.write_text(source)


if __name__ == "__main__":
    main()
