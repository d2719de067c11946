"""The descriptions of the environment agree, lead to no private place, and tools take them."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
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


def test_a_commit_is_checked_by_the_ruff_of_the_constraints():
    repositories = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    (revision,) = [r["rev"] for r in repositories if r["repo"].endswith("/ruff-pre-commit")]
    assert revision == f"v{constraints()['ruff']}"


@pytest.mark.parametrize("heading, fails", [("Unreleased", True), ("0.2.0 (2026-12-01)", False)])
def test_a_release_needs_notes(tmp_path, heading, fails):
    jobs = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())["jobs"]
    script = jobs["draft"]["steps"][-1]["run"]
    (tmp_path / "CHANGELOG.md").write_text(f"# Changelog\n\n## {heading}\n\n- A change.\n")
    done = subprocess.run(
        ["bash", "-e", "-c", "gh() { cat notes.md; }\n" + script],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "GITHUB_REF_NAME": "v0.2.0"},
        capture_output=True,
        text=True,
    )
    assert bool(done.returncode) == fails
    said = "::error::CHANGELOG.md says nothing of 0.2.0" if fails else "- A change."
    assert said in done.stdout


@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
def test_a_model_of_two_words_reaches_the_build_whole():
    command = ["make", "--dry-run", "book", "MODEL=my model"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert 'essay build --model "my model"' in done.stdout


def test_what_publishing_reads_and_writes_does_not_depend_on_the_locale():
    for path in (ROOT / "src/essaylib/publishing").glob("*.py"):
        # store.write_text always writes UTF-8
        for call in re.findall(r"(?<!store)\.(?:read|write)_text\([^\n]*", path.read_text("utf-8")):
            assert "utf-8" in call, f"{path.name}: {call}"
