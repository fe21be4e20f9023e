"""The two ends of what pyproject.toml promises: `nox`, or `nox -- PYTEST_ARGUMENTS`."""

import nox

nox.options.sessions = ["lowest", "newest"]
PROJECT = nox.project.load_toml("pyproject.toml")["project"]
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


def test(session: nox.Session, *versions: str) -> None:
    """Installs the package with ``versions``; tests node space, or what is asked."""
    session.install("--editable", ".[dev]", *versions)
    session.run("pytest", *(session.posargs or NODE_SPACE))
