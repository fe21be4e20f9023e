"""The two ends of what pyproject.toml promises: `nox`, or `nox -- PYTEST_ARGUMENTS`.

`nox -s wheel` is what a release has.
"""

import re
import tarfile
import zipfile
from pathlib import Path

import nox

nox.options.sessions = ["lowest", "newest"]
PROJECT = nox.project.load_toml("pyproject.toml")["project"]
ABOUT = {
    *("README.md", "CHANGELOG.md", "CITATION.cff", "LICENSE"),
    *("pyproject.toml", "PKG-INFO", ".gitignore"),
}
"""What a source distribution holds beside the package."""
NODE_SPACE = [
    *("tests/program", "tests/node_space"),
    *("qiaso_jax/program", "qiaso_jax/node_space"),
]


@nox.session(python="3.11")
def lowest(session: nox.Session) -> None:
    """Tests on the lowest versions that pyproject.toml promises."""
    promised = PROJECT["dependencies"] + PROJECT["optional-dependencies"]["flax"]
    test(session, *(each.replace(">=", "==") for each in promised))


@nox.session(python="3.13")
def newest(session: nox.Session) -> None:
    """Tests on the newest versions that a fresh environment gets."""
    test(session)


@nox.session(python="3.11")
def wheel(session: nox.Session) -> None:
    """Builds into dist/, looks at what is in it, and runs README's first example."""
    session.install("build", "twine")
    built = Path(session.create_tmp())
    session.run("python", "-m", "build", "--outdir", str(built))
    (sdist,), (wheel,) = built.glob("*.tar.gz"), built.glob("*.whl")
    session.run("twine", "check", "--strict", str(sdist), str(wheel))
    sources = {str(path) for path in Path("qiaso_jax").rglob("*.py")}
    sources.add("qiaso_jax/py.typed")
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    with tarfile.open(sdist) as archive:
        members = {name.partition("/")[2] for name in archive.getnames()}
    for found, expected in ((names, sources), (members, sources | ABOUT)):
        if found != expected:
            session.error(f"missing or too much: {sorted(found ^ expected)}")
    environment = built / "environment"
    session.run("python", "-m", "venv", "--clear", str(environment))
    python = str(environment / "bin" / "python")
    session.run(python, "-m", "pip", "install", "--quiet", str(wheel), external=True)
    example = re.findall(r"```python\n(.*?)```", Path("README.md").read_text(), re.S)[0]
    with session.chdir(built):
        session.run(python, "-c", example, external=True)


def test(session: nox.Session, *versions: str) -> None:
    """Installs the package with ``versions``; tests node space, or what is asked."""
    session.install("--editable", ".[dev]", *versions)
    session.run("pytest", *(session.posargs or NODE_SPACE))
