"""The three descriptions of the environment agree, and none leads to a private place."""

import re
import tomllib
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
CONDA_NAMES = {"torch": "pytorch", "matplotlib": "matplotlib-base"}


def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def requirements(*extras):
    """Requirements of the package and of some extras, those on itself left out."""
    found = list(project()["dependencies"])
    for extra in extras:
        found += project()["optional-dependencies"][extra]
    return [r for r in map(Requirement, found) if r.name != "essaylib"]


def constraints():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return {canonicalize_name(name): version for name, version in (x.split("==") for x in lines)}


def test_conda_environment_has_the_ranges_of_pyproject():
    entries = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    conda = {Requirement(e).name: Requirement(e).specifier for e in entries if isinstance(e, str)}
    for requirement in requirements("run", "book", "lab"):
        name = CONDA_NAMES.get(requirement.name, requirement.name)
        found = conda.get(name, conda.get(name.replace("-", "_")))
        assert found == requirement.specifier, requirement.name
    assert conda["python"] == project()["requires-python"]
    assert {"pip": ["-e ."]} in entries


def test_constraints_hold_every_requirement_within_its_range():
    exact = constraints()
    for requirement in requirements("run", "book", "test", "train"):
        name = canonicalize_name(requirement.name)
        assert name in exact, f"add {requirement.name} to constraints.txt"
        assert requirement.specifier.contains(exact[name]), requirement


def test_constraints_are_exact_versions_from_the_public_index():
    exact = constraints()
    assert exact["torch"] == "2.13.0"
    for name, version in exact.items():
        assert re.fullmatch(r"[0-9][0-9a-z.]*", version), f"{name}=={version}"


def test_ranges_leave_a_hosted_notebook_its_own_versions():
    assert not [r for r in requirements() if "==" in str(r.specifier) or "<" in str(r.specifier)]
