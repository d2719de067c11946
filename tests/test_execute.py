import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import nbformat
import psutil
import pytest
from tiny_book import Book, Inline

import essaylib
from essaylib import claims, figures
from essaylib.errors import EssayError
from essaylib.publishing import cache, execute, worker
from essaylib.publishing.chapters import chapters, check_parameters, read
from essaylib.publishing.progress import Progress

ESSAY = Path(sys.executable).with_name("essay")


@pytest.fixture
def book(tmp_path, monkeypatch):
    made = Book(tmp_path)
    monkeypatch.setattr(essaylib, "__file__", str(tmp_path / "src/essaylib/__init__.py"))
    monkeypatch.delenv("ESSAY_CHAPTER", raising=False)
    monkeypatch.setenv("ESSAY_ROOT", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "src"))
    before = dict(os.environ)
    yield made
    os.environ.clear()
    os.environ.update(before)


def run(ids=None, **parameters):
    return execute.run(ids, parameters, executor=Inline())


def statuses(report):
    return {entry.id: entry.status for entry in report.chapters}


def written(book):
    return json.loads((book.root / "_build/report.json").read_text())


def outputs(book, id):
    notebook = nbformat.read(book.root / f"_build/executed/{id}.ipynb", as_version=4)
    return [
        "".join(output.get("text", "") for output in cell.outputs)
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


def test_a_second_run_executes_nothing(book):
    book.chapter("one", "from essaylib.alpha import f", "print(f())")
    book.chapter("two", "print('two')")
    assert statuses(run()) == {"one": "ok", "two": "ok"}
    assert outputs(book, "one")[-1] == "42\n"
    assert statuses(run()) == {"one": "cached", "two": "cached"}
    first, second = written(book)["chapters"]
    assert (first["id"], second["id"]) == ("one", "two")
    assert first["status"] == "cached"
    assert first["seconds"] > 0 and first["peak_mb"] > 10 and first["figures"] == []


def test_an_edited_module_runs_only_the_chapters_that_reach_it(book):
    book.chapter("one", "from essaylib import alpha", "print(alpha.f())")
    book.chapter("two", "from essaylib.gamma import h", "print(h())")
    run()
    book.edit("src/essaylib/beta.py", "21", "22")
    assert statuses(run()) == {"one": "ok", "two": "cached"}
    assert outputs(book, "one")[-1] == "44\n"


def test_edited_prose_runs_nothing_and_updates_the_notebook(book):
    book.chapter("one", "print('kept')", prose="Old words.")
    run()
    book.edit("book/one.md", "Old words.", "New words, and a\n\n## New section\n")
    assert statuses(run()) == {"one": "cached"}
    text = (book.root / "_build/executed/one.ipynb").read_text()
    assert "New section" in text and "Old words" not in text
    assert outputs(book, "one")[-1] == "kept\n"


@pytest.mark.parametrize(
    ("path", "old", "new", "names"),
    [
        ("book/one.md", "f()", "f() + 1", ["code"]),
        ("book/one.md", "seed = 0", "seed = 3", ["code", "parameters"]),
        ("book/one.md", "Some prose.", "Other prose.", []),
        ("src/essaylib/alpha.py", "2 * g()", "3 * g()", ["essaylib.alpha"]),
        ("src/essaylib/beta.py", "21", "22", ["essaylib.beta"]),
        ("src/essaylib/gamma.py", "7", "8", []),
        ("src/essaylib/alpha.py", "Double.", "Twice as much.", []),
        ("src/essaylib/alpha.py", '"""Alpha."""\n', "# A comment\n", []),
        ("src/essaylib/measures/vendi.py", "1.0", "2.0", []),
        ("data/corpus/corpus.parquet", "drawings", "other drawings", ["corpus"]),
        ("models/emoji-ldm/unet.safetensors", "weights", "other weights", ["weights"]),
    ],
)
def test_what_makes_a_chapter_run_again(book, path, old, new, names):
    book.chapter("one", "from essaylib.alpha import f", "print(f())")
    before = key()
    book.edit(path, old, new)
    assert cache.changed(before, key()) == names


def key(id="one", threads=1, **given):
    notebook = read(chapters([id])[0])
    parameters = check_parameters(execute.defaults(notebook), given)
    return cache.key(notebook, parameters, threads)


def test_parameters_threads_and_versions_are_part_of_the_key(book, monkeypatch):
    book.chapter("one", "print(1)")
    before = key()
    assert cache.changed(before, key(seed=0)) == []
    assert cache.changed(before, key(seed=1)) == ["parameters"]
    assert cache.changed(before, key(threads=2)) == ["threads"]
    monkeypatch.setattr(cache, "version", lambda name: "99" if name == "torch" else "1")
    monkeypatch.setattr(cache, "PACKAGES", ("torch",))
    assert "torch version" in cache.changed(before, key())


def test_a_model_folder_given_as_parameter_is_part_of_the_key(book):
    book.chapter("one", "print(1)")
    folder = book.write("elsewhere/unet.safetensors", "a").parent
    before = key(model=str(folder))
    book.write("elsewhere/unet.safetensors", "b")
    assert cache.changed(before, key(model=str(folder))) == ["model"]


def test_the_folder_one_stands_in_is_no_model(book, monkeypatch):
    monkeypatch.chdir(book.root)
    book.chapter("one", "print(1)", parameters="")
    book.chapter("two", "print(2)")
    book.write("embedded/notes.txt", "A folder that happens to have the model's name.")
    assert "model" not in key("one").keys() | key("two").keys()


def test_model_cards_and_training_logs_are_not_weights(book):
    book.chapter("one", "print(1)")
    before = key()
    book.write("models/emoji-ldm/README.md", "A card.")
    book.write("models/emoji-ldm/log.csv", "step,loss")
    book.write("models/emoji-ldm/sheets/loss.svg", "<svg/>")
    assert key() == before


def test_only_the_runs_that_a_chapter_names_count(book):
    book.chapter("one", "from essaylib import runs", "runs.load('sweep')")
    book.write("data/runs/sweep/plan.yml", "a")
    book.write("data/runs/other/plan.yml", "a")
    before = key()
    book.write("data/runs/other/plan.yml", "b")
    assert key() == before
    book.write("data/runs/sweep/plan.yml", "b")
    assert cache.changed(before, key()) == ["run sweep"]


def test_a_chapter_that_names_no_run_depends_on_all(book):
    book.chapter("one", "from essaylib import runs", "runs.load(name := 'swe' + 'ep')")
    book.write("data/runs/sweep/plan.yml", "a")
    before = key()
    book.write("data/runs/sweep/plan.yml", "b")
    assert cache.changed(before, key()) == ["run sweep"]


@pytest.mark.parametrize(
    ("code", "file", "part"),
    [
        ("from essaylib import claims", "book/claims.yml", "claims.yml"),
        (
            "from essaylib.measures import tokens",
            "data/vocabularies/clip-merges.txt.gz",
            "vocabularies",
        ),
    ],
)
def test_a_file_counts_where_the_module_that_reads_it_is_reached(book, code, file, part):
    book.write("src/essaylib/measures/tokens.py", "def clip(): pass\n")
    book.chapter("one", code)
    book.chapter("two", "print(2)")
    book.write(file, "a")
    before = key("one"), key("two")
    book.write(file, "b")
    assert cache.changed(before[0], key("one")) == [part]
    assert key("two") == before[1]


@pytest.mark.parametrize(
    ("code", "modules"),
    [
        ("import essaylib.measures.vendi", {"essaylib.measures.vendi", "essaylib.measures"}),
        ("from essaylib.measures import vendi", {"essaylib.measures.vendi", "essaylib.measures"}),
        ("from essaylib import gamma", {"essaylib.gamma"}),
        ("import numpy", set()),
    ],
)
def test_modules_reached(book, code, modules):
    found = set(cache.reached([execute.cache.parse(code)]))
    assert found - {"essaylib"} == modules
    assert ("essaylib" in found) == bool(modules)


def test_relative_imports_are_followed(book):
    book.write("src/essaylib/measures/vendi.py", "from . import gini\nfrom ..gamma import h\n")
    book.write("src/essaylib/measures/gini.py", "")
    found = cache.reached([cache.parse("from essaylib.measures import vendi")])
    assert {"essaylib.measures.gini", "essaylib.gamma"} <= set(found)


def test_a_failed_chapter_is_named_and_the_others_finish(book):
    book.chapter("one", "x = 0", "1 / x")
    book.chapter("two", "print('two')")
    report = run()
    assert statuses(report) == {"one": "failed", "two": "ok"}
    with pytest.raises(EssayError) as raised:
        report.raise_for_failures()
    assert "one failed: code cell 3 (book/one.md, line 24): ZeroDivisionError" in str(raised.value)
    entry = written(book)["chapters"][0]
    assert (entry["status"], entry["error"]["cell"]) == ("failed", 3)
    assert "1 / x" in (book.root / "_build/executed/one.failed.ipynb").read_text()
    book.edit("book/one.md", "x = 0", "x = 1")
    assert statuses(run()) == {"one": "ok", "two": "cached"}
    assert not (book.root / "_build/executed/one.failed.ipynb").exists()


def test_a_kernel_that_dies_is_a_failed_chapter(book):
    book.chapter("one", "import os; os._exit(1)")
    (entry,) = run().chapters
    assert entry.status == "failed"
    assert entry.error["cell"] == 2 and "memory" in entry.error["message"]


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("x = (1,\n", "book/one.md, line 21 (code cell 2)"),
        ("\ny = 1\nfor\n", "invalid syntax: for"),
        (":tags: [a\nx = 1", "book/one.md cannot be read as a notebook"),
    ],
)
def test_a_syntax_error_names_its_place_and_the_others_finish(book, cell, message):
    book.chapter("one", cell)
    book.chapter("two", "print('two')")
    report = run()
    assert statuses(report) == {"one": "failed", "two": "ok"}
    with pytest.raises(EssayError, match=message.replace("(", r"\(").replace(")", r"\)")):
        report.raise_for_failures()


def test_magics_and_top_level_await_are_no_syntax_errors(book):
    book.chapter("one", "%matplotlib inline", "!true", "await f()")
    assert read(chapters(["one"])[0])


def test_given_parameters_reach_the_kernel_and_the_page(book):
    book.chapter("one", "print(seed, samples, scale)")
    (entry,) = run(seed=7, scale=2).chapters
    assert (entry.parameters["seed"], entry.parameters["scale"]) == (7, 2.0)
    assert outputs(book, "one")[-1] == "7 4 2.0\n"
    notebook = nbformat.read(book.root / "_build/executed/one.ipynb", as_version=4)
    injected = [c for c in notebook.cells if "injected-parameters" in c.metadata.get("tags", ())]
    assert "seed = 7" in injected[0].source
    book.edit("book/one.md", "Some prose.", "Other prose.")
    assert statuses(run(seed=7, scale=2)) == {"one": "cached"}
    assert outputs(book, "one")[-1] == "7 4 2.0\n"


def test_a_failing_cell_is_counted_without_the_injected_one(book):
    book.chapter("one", "print(1)", "raise ValueError('no')")
    (entry,) = run(seed=7).chapters
    assert entry.error["cell"] == 3


def test_a_chapter_without_a_parameter_ignores_it(book):
    book.chapter("one", "print('plain')", parameters="")
    (entry,) = run(seed=7).chapters
    assert (entry.status, entry.parameters) == ("ok", {})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"seed": "one"}, "seed takes int"),
        ({"seed": True}, "seed takes int"),
        ({"seed": -1}, "negative"),
        ({"samples": 0}, "draws nothing"),
        ({"scale": "1.0"}, "scale takes float"),
        ({"device": "tpu"}, "no device 'tpu'"),
    ],
)
def test_a_parameter_of_the_wrong_type_or_range_is_refused(given, message):
    declared = {"seed": 0, "device": "auto", "samples": 4, "scale": 1.5}
    with pytest.raises(EssayError, match=message):
        check_parameters(declared, given)


def test_a_wrong_parameter_fails_the_chapter_before_it_runs(book):
    book.chapter("one", "print(seed)")
    (entry,) = run(seed="one").chapters
    assert entry.status == "failed" and "seed takes int" in entry.error["message"]
    assert not (book.root / "_build/executed/one.ipynb").exists()


@pytest.mark.parametrize("given", [{"seed": -1}, {"samples": 0}, {"device": "tpu"}])
def test_a_parameter_out_of_range_leaves_the_last_report_as_it_was(book, given):
    book.chapter("one", "print(seed)")
    run()
    before = (book.root / "_build/report.json").read_bytes()
    with pytest.raises(EssayError, match=next(iter(given))):
        run(**given)
    assert (book.root / "_build/report.json").read_bytes() == before


def test_a_chapter_that_is_not_listed_is_told_where_to_list_it(book):
    book.chapter("one", "print(1)")
    listed = (book.root / "_toc.yml").read_text()
    book.chapter("two", "print(2)")
    (book.root / "_toc.yml").write_text(listed)
    with pytest.raises(EssayError, match="Add `- file: book/two` to _toc.yml"):
        run(["two"])


def test_computed_parameters_are_refused(book):
    book.chapter("one", "print(1)", parameters="```{code-cell}\n:tags: [parameters]\nn = f()\n```")
    (entry,) = run().chapters
    assert "may only assign plain values" in entry.error["message"]


def test_unknown_chapters_models_and_counts_are_refused(book):
    book.chapter("one", "print(1)")
    with pytest.raises(EssayError, match="no chapter three. The chapters are: one"):
        run(["three"])
    with pytest.raises(EssayError, match="Unknown model 'nonesuch'"):
        run(model="nonesuch")
    with pytest.raises(EssayError, match="1 or more"):
        execute.run(jobs=0)


def test_a_subset_keeps_the_other_entries_of_the_report(book):
    book.chapter("one", "print(1)")
    book.chapter("two", "print(2)")
    run()
    report = run(["two"])
    assert statuses(report) == {"two": "cached"}
    assert [entry["id"] for entry in written(book)["chapters"]] == ["one", "two"]


def test_the_threads_of_a_chapter_are_set_and_recorded(book):
    book.chapter("one", "import os", "print(os.environ['OMP_NUM_THREADS'])")
    (entry,) = execute.run(threads=2, executor=Inline()).chapters
    assert entry.threads == 2
    assert outputs(book, "one")[-1] == "2\n"


BAR = "_build/figures/one-bar/data.csv"
VERDICT = "_build/claims/one.json"


def leaves(path, mark, id):
    """A cell that writes the seed to a file and shows an output marked as its figure or verdict."""
    metadata = {mark: {"id": id}}
    return (
        "from pathlib import Path\nfrom IPython.display import display\n"
        f"path = Path({path!r})\npath.parent.mkdir(parents=True, exist_ok=True)\n"
        "path.write_text(str(seed))\n"
        f"display({{'text/plain': path.name}}, raw=True, metadata={metadata!r})"
    )


def draws():
    return leaves(BAR, figures.MIME, "one-bar")


def test_figures_are_listed_and_a_lost_one_runs_its_chapter_again(book):
    book.chapter("one", draws())
    (entry,) = run().chapters
    assert entry.figures == ["one-bar"]
    assert statuses(run()) == {"one": "cached"}
    (book.root / BAR).unlink()
    assert statuses(run()) == {"one": "ok"}


def test_figures_of_a_run_that_failed_are_not_taken_for_those_of_the_last(book):
    book.chapter("one", draws(), "assert seed == 0")
    run()
    assert statuses(run(seed=1)) == {"one": "failed"}
    assert (book.root / BAR).read_text() == "1"
    assert statuses(run()) == {"one": "ok"}
    assert (book.root / BAR).read_text() == "0"
    assert statuses(run()) == {"one": "cached"}


def test_a_verdict_recorded_over_runs_its_chapter_again(book, capsys):
    book.chapter("one", leaves(VERDICT, claims.MIME, "one"))
    run()
    assert statuses(run()) == {"one": "cached"}
    book.write(VERDICT, "a reader's own")
    assert statuses(run()) == {"one": "ok"}
    assert "one: to run (its figures or verdicts)" in capsys.readouterr().err
    assert (book.root / VERDICT).read_text() == "0"


def test_a_chapter_must_use_its_own_id(book):
    book.chapter("one", "from essaylib.glue import chapter", "chapter('two')")
    (entry,) = run().chapters
    assert "give it its own id" in entry.error["message"]


def test_an_error_outside_the_notebook_is_reported(book):
    class Broken(Inline):
        def submit(self, function, /, *args, **kwargs):
            future = execute.Future()
            future.set_exception(execute.BrokenExecutor("gone"))
            return future

    book.chapter("one", "print(1)")
    (entry,) = execute.run(executor=Broken()).chapters
    assert entry.status == "failed" and "ended from outside" in entry.error["message"]


def test_processes_run_side_by_side_and_force_runs_again(book):
    book.chapter("one", "print('one')")
    book.chapter("two", "print('two')")
    assert statuses(execute.run(jobs=2)) == {"one": "ok", "two": "ok"}
    assert statuses(execute.run(["one"], force=True)) == {"one": "ok"}


def test_an_interrupted_run_is_resumed(book):
    book.chapter("quick", "print('quick')")
    book.chapter(
        "slow",
        "import time\nfrom pathlib import Path\nPath('begun').touch()\n"
        "time.sleep(0 if Path('go').exists() else 120)\nprint('slow')",
    )
    command = [ESSAY, "run", "--jobs", "1"]
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        env=env,
        # A shell that runs the tests in the background has them ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    _until(lambda: (book.root / "begun").exists())
    children = psutil.Process(process.pid).children(recursive=True)
    assert children
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "interrupted" in said and "Traceback" not in said
    report = written(book)
    assert report["interrupted"]
    assert [(e["id"], e["status"]) for e in report["chapters"]] == [("quick", "ok")]
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive
    (book.root / "go").touch()
    assert statuses(run()) == {"quick": "cached", "slow": "ok"}
    assert not written(book)["interrupted"]


def _until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


def test_damaged_contents_are_named(book):
    book.write("_toc.yml", "root: [")
    with pytest.raises(EssayError, match="not valid YAML"):
        chapters()
    book.write("_toc.yml", "format: jb-book\n")
    with pytest.raises(EssayError, match="names no first page"):
        chapters()


def test_two_chapters_with_one_id_are_refused(book):
    book.chapter("one", "print(1)")
    book.write("book/part/one.md", (book.root / "book/one.md").read_text())
    book.write("_toc.yml", "root: book/index\nchapters: [{file: book/one}, {file: book/part/one}]")
    with pytest.raises(EssayError, match="have one id"):
        chapters()


def test_a_damaged_report_or_record_only_costs_a_run(book):
    book.chapter("one", "print(1)")
    run()
    book.write("_build/report.json", "{")
    book.write("_build/executed/one.json", "{")
    assert statuses(run()) == {"one": "ok"}


def test_without_a_count_of_memory_a_chapter_runs(monkeypatch):
    monkeypatch.setitem(sys.modules, "resource", None)
    assert worker._children_peak_mb() == 0


def test_a_second_run_waits_for_the_first(book, capsys):
    book.chapter("one", "print(1)")
    path = book.write("_build/executed/.lock", "")
    hold = "import sys, filelock\nwith filelock.FileLock(sys.argv[1]): print(), sys.stdin.read()"
    holder = subprocess.Popen(
        [sys.executable, "-uc", hold, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    holder.stdout.readline()
    threading.Timer(0.5, holder.stdin.close).start()
    assert statuses(run()) == {"one": "ok"}
    assert "another run is going on" in capsys.readouterr().err
    holder.stdout.close()
    assert holder.wait() == 0


def test_a_model_folder_is_given_to_chapters_by_its_full_path(book, monkeypatch):
    book.chapter("one", "print(model)")
    folder = book.write("weights/model_index.json", "{}").parent
    monkeypatch.chdir(book.root)
    run(model="weights")
    assert outputs(book, "one")[-1] == f"{folder}\n"


def test_a_terminal_shows_bars(book, monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    with Progress(2) as progress:
        book.write("progress", "3/12")
        progress.running("one", book.root / "progress")
        progress.running("one", book.root / "nonesuch")
        progress.finished("one", "ok", 2.5, 300)
    shown = capsys.readouterr().err
    assert "chapters" in shown and "one: ok in 2.5 s, 300 MB" in shown


def test_many_reasons_are_counted(capsys):
    with Progress(1) as progress:
        progress.waiting("one", ["a", "b", "c", "d", "e"])
    assert "one: to run (a, b, c and 2 more)" in capsys.readouterr().err
