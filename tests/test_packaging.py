"""The package list, named by hand, against the tree."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

import fastnlp

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def project():
    path = ROOT / "pyproject.toml"
    if not path.exists():
        pytest.skip("the tests run outside a checkout")
    return tomllib.loads(path.read_text())


def test_the_package_list_matches_the_tree(project):
    found = set()
    for top, name in ((ROOT / "fastnlp", "fastnlp"), (ROOT / "kernels", "fastnlp.kernels")):
        for path in top.rglob("__init__.py"):
            parts = path.parent.relative_to(top).parts
            if "kernels" not in parts:  # the symlink
                found.add(".".join((name, *parts)))
    assert found == set(project["tool"]["setuptools"]["packages"])


def test_no_folder_of_code_lacks_its_init():
    for top in (ROOT / "fastnlp", ROOT / "kernels"):
        for path in top.rglob("*.py"):
            assert (path.parent / "__init__.py").exists(), path


def test_the_kernels_are_seen_in_an_uninstalled_checkout():
    link = ROOT / "fastnlp" / "kernels"
    assert link.is_symlink()
    assert link.resolve() == ROOT / "kernels"


def test_core_dependencies_are_three(project):
    names = {requirement.split(">")[0] for requirement in project["project"]["dependencies"]}
    assert names == {"numpy", "scipy", "numba"}
    assert set(project["project"]["optional-dependencies"]) >= {
        "cli",
        "torch",
        "cuda",
        "cuda-check",
        "test",
        "bench",
        "docs",
    }


def test_the_changelog_knows_this_version():
    assert f"## {fastnlp.__version__}" in (ROOT / "CHANGELOG.md").read_text()
