import errno
import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from tiny_book import Book, Inline
from typer.testing import CliRunner

from essaylib import cli, figures, glue
from essaylib.errors import EssayError
from essaylib.publishing import lock

BEGIN = "from essaylib import glue\nglue.chapter('{id}', model=model, seed=seed, samples=samples)"
FIGURE = """from essaylib.figures import figure
from pathlib import Path
import os
constant = float((Path(os.environ["ESSAY_ROOT"]) / "{constant}").read_text())
with figure("{id}", data={{"x": [1, 2], "y": [constant, 2 * constant]}},
            caption="A line of {{n}} points.", alt="A rising line.") as fig:
    fig.subplots().plot([1, 2], [constant, 2 * constant])"""


def chapter(book, id, *drawn):
    cells = [FIGURE.format(id=f"{id}-{name}", constant=constant) for name, constant in drawn]
    book.chapter(id, BEGIN.format(id=id), *cells)


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    """Two chapters with three figures, drawn and locked."""
    made = Book(tmp_path_factory.mktemp("locked"))
    made.write("alpha.txt", "1.0")
    made.write("beta.txt", "3.0")
    chapter(made, "one", ("rise", "alpha.txt"), ("line", "beta.txt"))
    chapter(made, "two", ("other", "beta.txt"))
    before = dict(os.environ)
    os.environ["ESSAY_ROOT"] = str(made.root)
    found = verify()
    assert {str(item) for item in found} == {
        f"{id}: missing: not in the lock" for id in ("one-line", "one-rise", "two-other")
    }
    assert len(lock.accept()) == 3
    yield made
    os.environ.clear()
    os.environ.update(before)


def verify(*ids):
    return lock.verify(ids or None, executor=Inline())


def statuses(found):
    return {item.id: item.comparison.status for item in found}


ALL = {"one-line": "identical", "one-rise": "identical", "two-other": "identical"}


def test_drawing_again_is_identical_and_locking_again_changes_nothing(book):
    assert statuses(verify()) == ALL
    before = lock.path().read_text()
    assert lock.accept() == []
    assert lock.path().read_text() == before


def test_the_lock_has_the_published_form(book):
    found = json.loads(lock.path().read_text())["figures"]
    assert set(found) == set(ALL)
    entry = found["one-rise"]["embedded"]
    assert entry["chapter"] == "one" and entry["parameters"]["samples"] == 4
    assert entry["fingerprint"]["columns"]["y"]["values"] == [1.0, 2.0]
    registry = yaml.safe_load((book.root / "book/figures.yml").read_text())["figures"]
    assert registry["two-other"] == {"chapter": "two", "title": "A line of 2 points"}


def test_a_changed_constant_names_exactly_the_figures_that_changed(book):
    book.write("alpha.txt", "1.5")
    try:
        found = verify()
        assert statuses(found) == {**ALL, "one-rise": "changed"}
        (changed,) = lock.failures(found)
        assert str(changed).startswith("one-rise: changed: y at row")
        assert "(off by 50 %, tolerance 2 %)" in str(changed)
        assert statuses(verify("two-other")) == {"two-other": "identical"}
    finally:
        book.write("alpha.txt", "1.0")


def test_a_small_change_is_within_tolerance(book):
    book.write("alpha.txt", "1.001")
    try:
        found = verify("one-rise")
        assert statuses(found) == {"one-rise": "within tolerance"}
        assert lock.failures(found) == []
    finally:
        book.write("alpha.txt", "1.0")


def test_a_figure_that_its_chapter_draws_no_more_is_missing(book):
    chapter(book, "two", ("fresh", "beta.txt"))
    try:
        found = {item.id: str(item) for item in verify("two-other")}
        assert found == {"two-other": "two-other: missing: not drawn by its chapter"}
        assert statuses(verify())["two-fresh"] == "missing"
    finally:
        chapter(book, "two", ("other", "beta.txt"))


def test_a_chapter_that_fails_leaves_its_figures_missing(book):
    book.write("beta.txt", "no number")
    try:
        (found,) = verify("two-other")
        assert found.comparison.status == "missing"
        assert "its chapter failed: could not convert string" in str(found)
    finally:
        book.write("beta.txt", "3.0")


def test_a_chapter_that_fails_without_figures_is_an_error(book):
    book.chapter("three", "raise ValueError('no figures here')")
    try:
        with pytest.raises(EssayError, match="three failed.*no figures here"):
            verify()
    finally:
        (book.root / "book/three.md").unlink()
        book.contents()


def test_unknown_ids_are_refused_before_anything_runs(book):
    with pytest.raises(EssayError, match="No figure 'one-fall'"):
        verify("one-fall")


def test_the_commands_list_verify_and_lock(sandbox, monkeypatch):
    def draw(high):
        glue.chapter("guidance", model="embedded", seed=0)
        with figures.figure(
            "guidance-sweep", {"w": [1.0, high]}, "A sweep.", "A line.", claim="guidance"
        ) as fig:
            fig.subplots().plot([0, high])

    (sandbox / "book" / "claims.yml").write_text((ROOT / "book" / "claims.yml").read_text())
    draw(2.0)
    run = CliRunner()
    assert "1 figures locked anew" in run.invoke(cli.app, ["lock", "guidance-sweep"]).output
    listed = run.invoke(cli.app, ["figures"]).output
    assert listed.splitlines()[1].split() == [
        "guidance-sweep", "guidance", "guidance", "–", "identical",
    ]  # fmt: skip
    draw(3.0)
    assert "changed" in run.invoke(cli.app, ["figures"]).output
    monkeypatch.setattr(lock, "verify", lambda *_: [lock.status("guidance-sweep")])
    done = run.invoke(cli.app, ["verify", "--summary", str(sandbox / "summary.md")])
    assert done.exit_code == 1
    assert "w at row 2: 2.0 → 3.0" in done.output and "essay lock ID" in done.output
    row = "| `guidance-sweep` | guidance | changed: w at row 2: 2.0 → 3.0 ("
    assert row in (sandbox / "summary.md").read_text()
    assert "2.0 → 3.0" in run.invoke(cli.app, ["lock"]).output
    done = run.invoke(cli.app, ["verify"])
    assert (done.exit_code, "1 as locked." in done.output) == (0, True)
    assert lock.summary([lock.status("guidance-sweep")]).startswith("All 1 figures and claims")


def test_claims_are_compared_with_their_own_lock(sandbox):
    from datetime import UTC, datetime, timedelta

    from essaylib import claims

    (sandbox / "book" / "claims.yml").write_text((ROOT / "book" / "claims.yml").read_text())
    began = datetime.now(UTC) - timedelta(minutes=1)

    def record(estimate):
        glue.chapter("values", model="embedded", seed=0)
        test = claims.Test(estimate, estimate - 0.02, estimate + 0.02, p=0.001, n=1008)
        claims.record("values", test, control_ok=True, seed=None, show=False)
        return [str(item) for item in lock._claims(began)]

    assert record(0.4) == [], "nothing is locked yet"
    claims.lock()
    assert record(0.4) == ["claim values: identical"]
    assert record(0.404)[0].startswith("claim values: within tolerance")
    assert "low at row 1: 0.38 → 0.58" in record(0.6)[0]
    later = datetime.now(UTC) + timedelta(minutes=1)
    assert "not recorded" in str(lock._claims(later)[0])


def test_each_model_has_its_own_entry(sandbox):
    for model in ("embedded", "/home/me/sd15"):
        glue.chapter("guidance", model=model)
        with figures.figure("guidance-sweep", {"w": [len(model)]}, "A sweep.", "A line.") as fig:
            fig.subplots().plot([0, 1])
        lock.accept()
    assert set(lock.read()["guidance-sweep"]) == {"embedded", "sd15"}
    assert "/home/me" not in lock.path().read_text()
    assert lock.status("guidance-sweep").comparison.status == "identical"
    assert lock.status("guidance-sweep", "embedded").comparison.status == "missing"


def draw(id, *numbers):
    glue.chapter("guidance", model="embedded", seed=0)
    with figures.figure(id, {"w": numbers}, "A sweep.", "A line.") as fig:
        fig.subplots().plot(numbers)


def test_a_renamed_figure_leaves_the_lock_and_its_old_id_leads_to_the_new(sandbox):
    for id in ("guidance-old", "guidance-new"):
        draw(id, 1.0, 2.0)
        lock.accept()
    registry = sandbox / "book" / "figures.yml"
    entries = yaml.safe_load(registry.read_text())["figures"]
    entries["guidance-old"] = {"redirect": "guidance-new"}
    registry.write_text(yaml.safe_dump({"figures": entries}))
    assert "guidance-old" in figures.ids(), "its folder still lies in _build"
    assert [item.id for item in verify()] == ["guidance-new"]
    assert [line.split()[0] for line in lock.table()] == ["FIGURE", "guidance-new"]
    draw("guidance-new", 1.0, 3.0)
    assert [item.id for item in lock.accept(["guidance-old", "guidance-new"])] == ["guidance-new"]
    assert lock.accept() == []
    assert set(json.loads(lock.path().read_text())["figures"]) == {"guidance-new"}
    kept = yaml.safe_load(registry.read_text())["figures"]
    assert kept["guidance-old"] == {"redirect": "guidance-new"}


def test_a_lock_that_cannot_be_written_whole_stays_as_it_was(sandbox, monkeypatch):
    draw("guidance-sweep", 1.0)
    lock.accept()
    before = lock.path().read_text()
    draw("guidance-sweep", 2.0)

    def full(path, text, **_):
        path.write_bytes(text.encode()[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(EssayError, match="No space left"):
        lock.accept()
    assert lock.path().read_text() == before


def test_figures_are_listed_in_a_book_without_claims(sandbox):
    draw("guidance-sweep", 1.0)
    assert lock.table()[1].split()[:3] == ["guidance-sweep", "guidance", "–"]


@pytest.mark.parametrize("place", ["missing/summary.md", "."])
def test_a_summary_that_cannot_be_written_is_told_before_anything_runs(sandbox, monkeypatch, place):
    monkeypatch.setattr(lock, "verify", lambda *_: pytest.fail("chapters were run"))
    done = CliRunner().invoke(cli.app, ["verify", "--summary", str(sandbox / place)])
    assert done.exit_code == 2 and "name another place" in done.stderr


def test_a_figure_outside_of_a_chapter_is_not_locked(sandbox):
    with figures.figure("guidance-sweep", {"w": [1]}, "A sweep.", "A line.") as fig:
        fig.subplots().plot([0, 1])
    with pytest.raises(EssayError, match="outside of a chapter"):
        lock.accept()


def test_a_damaged_lock_names_the_cure(sandbox):
    lock.path().write_text("{")
    with pytest.raises(EssayError, match="git checkout"):
        lock.read()


@pytest.mark.parametrize(
    ("after", "complaint"),
    [
        ({}, "a-b was removed"),
        ({"a-b": {"chapter": "z"}}, "a-b went from a to z"),
        ({"a-b": {"redirect": "a-c"}, "a-c": {"chapter": "a"}}, None),
        ({"a-b": {"chapter": "a", "title": "New"}, "a-d": {"chapter": "a"}}, None),
    ],
)
def test_an_id_is_permanent(after, complaint):
    found = lock.reused([{"a-b": {"chapter": "a"}}, after])
    assert found == [] if complaint is None else complaint in found[0]


def test_a_retired_id_is_never_used_again():
    versions = [{"a-b": {"redirect": "a-c"}}, {"a-b": {"chapter": "a"}}]
    assert lock.reused(versions) == ["a-b was retired and is used again."]


def test_no_id_of_this_book_was_ever_reused():
    def git(*words):
        command = ["git", "-C", str(ROOT), *words]
        return subprocess.run(command, capture_output=True, text=True).stdout

    # One parent each: side by side, branches would seem to remove each other's figures.
    log = ("log", "--first-parent", "--reverse", "--format=%H", "--", "book/figures.yml")
    commits = git(*log).split()
    texts = [git("show", f"{commit}:book/figures.yml") for commit in commits]
    texts.append((ROOT / "book" / "figures.yml").read_text())
    versions = [(yaml.safe_load(text) or {}).get("figures") or {} for text in texts]
    assert lock.reused(versions) == []


def test_every_locked_figure_is_registered_with_its_chapter():
    registry = yaml.safe_load((ROOT / "book" / "figures.yml").read_text())["figures"]
    locked = json.loads((ROOT / "book" / "figures.lock.json").read_text())["figures"]
    for id, models in locked.items():
        for entry in models.values():
            assert registry[id].get("chapter") in (entry["chapter"], None), id
    for id, entry in registry.items():
        assert entry.get("redirect", id) in registry, f"{id} leads nowhere"
