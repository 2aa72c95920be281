"""What is installed is what lies here: packages, the gallery, the type marker, the version."""

from __future__ import annotations

import pathlib
import tomllib

import pinnkit

ROOT = pathlib.Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_every_folder_of_the_package_is_installed():
    """pyproject lists the packages by hand (see there); a new folder must be added."""
    listed = set(PROJECT["tool"]["setuptools"]["packages"]) - {"pinnkit.problems"}
    found = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for path in (ROOT / "pinnkit").rglob("*.py")
        if "__pycache__" not in path.parts
    }
    assert listed == found


def test_every_package_has_an_init():
    """A folder without __init__.py would become a namespace package, and vanish from wheels."""
    for name in set(PROJECT["tool"]["setuptools"]["packages"]) - {"pinnkit.problems"}:
        assert (ROOT / pathlib.Path(*name.split(".")) / "__init__.py").exists(), name


def test_the_gallery_is_pinnkit_problems():
    """`problems/` at the root is importable as pinnkit.problems, in editable installs too."""
    from pinnkit import problems  # pyright: ignore[reportAttributeAccessIssue]

    assert pathlib.Path(problems.__file__).parent.resolve() == (ROOT / "problems").resolve()


def test_typed_and_of_one_version():
    """py.typed stands in the package; pyproject, the package and the citation agree on the version."""
    assert (ROOT / "pinnkit" / "py.typed").exists()
    version = PROJECT["project"]["version"]
    assert pinnkit.__version__ == version
    assert f"version: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
