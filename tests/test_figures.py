import json
import shutil
from pathlib import Path

import jsonschema
import numpy as np
import pandas as pd
import pytest
from PIL import Image

import essaylib
from essaylib import figures, glue, paths, plotting, provenance
from essaylib.errors import EssayError

SCHEMA = json.loads((Path(essaylib.__file__).parent / "figure.schema.json").read_text())
SWEEP = pd.DataFrame({"w": [1.0, 4.0], "adherence": [0.123456, 0.9], "kind": ["a", "b"]})


def draw(id="guidance-concentration", data=SWEEP, **settings):
    settings = {"caption": "Adherence by guidance, n = {n}.", "alt": "A rising line.", **settings}
    with figures.figure(id, data, **settings) as fig:
        plotting.frontier(fig, SWEEP, "w", "adherence")
    return figures.load(id)


def sheet(id="guidance-sheet", shade=0, **settings):
    with figures.figure(id, {"seed": [0]}, "A sheet.", "A grey square.", **settings) as fig:
        plotting.image_grid(fig, np.full((1, 16, 16, 3), shade, np.uint8), scale=2)
    return figures.load(id)


@pytest.fixture
def chapter(sandbox):
    return glue.chapter("guidance", model="embedded", seed=0, samples=4)


def test_a_bundle_holds_image_data_and_valid_provenance(chapter):
    for record in (draw(claim="guidance"), sheet()):
        jsonschema.validate(record, SCHEMA, jsonschema.Draft202012Validator)
        folder = figures.folder(record["id"])
        for part in ("image", "data"):
            assert provenance.sha256(folder / record[part]["file"]) == record[part]["sha256"]
    assert sorted(figures.ids()) == ["guidance-concentration", "guidance-sheet"]
    record = figures.load("guidance-concentration")
    assert (record["chapter"], record["parameters"]["samples"]) == ("guidance", 4)
    assert record["claim"] == {"id": "guidance", "verdict": None}
    data = pd.read_csv(figures.folder(record["id"]) / "data.csv")
    pd.testing.assert_frame_equal(data, SWEEP)


def test_the_schema_itself_is_valid_and_refuses_a_stray_key(chapter):
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(draw() | {"mood": "good"}, SCHEMA)


def test_line_drawings_are_svg_and_pictures_are_png_at_twice_the_size(chapter):
    assert draw()["image"]["file"] == "figure.svg"
    record = sheet()
    with Image.open(figures.folder("guidance-sheet") / "figure.png") as image:
        assert image.size == (2 * record["image"]["width"], 2 * record["image"]["height"])


@pytest.mark.parametrize("make", [draw, sheet])
def test_an_image_moved_elsewhere_still_says_where_it_came_from(chapter, tmp_path_factory, make):
    record = make()
    name = record["image"]["file"]
    copy = shutil.copy(figures.folder(record["id"]) / name, tmp_path_factory.mktemp("away") / name)
    shutil.rmtree(figures.folder(record["id"]))
    found = figures.read(copy)
    assert found["id"] == record["id"]
    assert found["citation"] == record["citation"]
    assert "Salvaggio" in found["citation"]
    assert found["commit"] == "unknown", "the sandbox is no git repository"


def test_png_metadata_names_the_commit_and_describes_the_image(chapter, monkeypatch):
    monkeypatch.setattr(provenance, "git", lambda: {"commit": "a" * 40, "clean": True})
    sheet()
    path = figures.folder("guidance-sheet") / "figure.png"
    with Image.open(path) as image:
        assert image.text["Description"] == "A grey square."
        assert "contributors" in image.text["Author"]
    assert figures.read(path)["commit"] == "a" * 40
    assert f"commit {'a' * 10})" in figures.read(path)["citation"]


def test_citations_admit_local_changes(chapter, monkeypatch):
    monkeypatch.setattr(provenance, "git", lambda: {"commit": "a" * 40, "clean": False})
    assert "with local changes" in draw()["citation"]


def test_other_images_are_not_figures(sandbox, tmp_path):
    Image.new("RGB", (2, 2)).save(tmp_path / "x.png")
    (tmp_path / "x.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    (tmp_path / "y.svg").write_text("not xml")
    for name in ("x.png", "x.svg", "y.svg"):
        with pytest.raises(EssayError, match="carries no id"):
            figures.read(tmp_path / name)
    with pytest.raises(EssayError, match="no file"):
        figures.read(tmp_path / "z.png")


@pytest.mark.parametrize("make", [draw, sheet])
def test_the_same_numbers_give_the_same_bytes(chapter, make):
    first = make()
    image = (figures.folder(first["id"]) / first["image"]["file"]).read_bytes()
    glue.chapter("guidance", model="embedded", seed=0, samples=4)
    second = make()
    assert (figures.folder(second["id"]) / second["image"]["file"]).read_bytes() == image
    assert first["data"] == second["data"]
    assert first["fingerprint"] == second["fingerprint"]


def test_templates_are_filled_with_computed_values(chapter):
    record = draw(
        caption="Adherence from {low} to {high:.0%}, n = {n}.  Two\n  lines.",
        alt="From {low} up; {{not}} filled.",
        values={"low": 0.123456, "high": 0.9},
    )
    assert record["caption"] == "Adherence from 0.123 to 90%, n = 2. Two lines."
    assert record["alt"] == "From 0.123 up; {not} filled."
    assert record["title"] == "Adherence from 0.123 to 90%, n = 2"


def test_a_title_can_be_given_and_a_long_first_sentence_is_shortened(chapter):
    assert draw(title="Two points")["title"] == "Two points"
    long = draw(id="guidance-long", caption="word " * 60 + ".")["title"]
    assert len(long) <= 140 and long.endswith("…")


@pytest.mark.parametrize(
    ("settings", "cure"),
    [
        ({"id": "Guidance"}, "not a figure id"),
        ({"id": "guidance"}, "not a figure id"),
        ({"id": "guidance_sheet"}, "not a figure id"),
        ({"id": "../guidance-x"}, "not a figure id"),
        ({"id": 3}, "not a figure id"),
        ({"alt": "  "}, "no alt text"),
        ({"caption": ""}, "no caption"),
        ({"caption": "{low} of {n}", "values": {"high": 1}}, "asks for {low}.*high, n"),
        ({"caption": "{} of"}, "asks for"),
        ({"caption": "an open { brace"}, "is not a template"),
        ({"data": []}, "is empty"),
        ({"data": {"x": [[1], [2]]}}, "spreadsheet"),
        ({"tolerance": {"height": 1}}, "No column 'height'"),
    ],
)
def test_bad_figures_are_refused_before_anything_is_drawn(chapter, settings, cure):
    with pytest.raises(EssayError, match=cure):
        draw(**settings)
    assert figures.ids() == []


def test_an_id_is_used_once_a_chapter(chapter):
    draw()
    with pytest.raises(EssayError, match="used twice"):
        draw()
    glue.chapter("guidance", model="embedded", seed=0)
    draw()


def test_an_id_of_another_chapter_and_a_retired_id_are_refused(chapter, sandbox):
    (sandbox / "book" / "figures.yml").write_text(
        "figures:\n"
        "  clip-ratio: {chapter: clip, title: x}\n"
        "  guidance-old: {redirect: guidance-sheet}\n"
    )
    with pytest.raises(EssayError, match="belongs to the chapter clip"):
        draw("clip-ratio")
    with pytest.raises(EssayError, match="retired .guidance-sheet"):
        draw("guidance-old")


def test_an_exception_in_the_block_leaves_nothing_and_keeps_what_was_there(chapter):
    before = draw()
    glue.chapter("guidance", model="embedded", seed=0)
    with (
        pytest.raises(ZeroDivisionError),
        figures.figure("guidance-concentration", SWEEP, "New.", "New."),
    ):
        1 / 0  # noqa: B018
    assert figures.load("guidance-concentration") == before
    assert [path.name for path in figures.folder("x").parent.iterdir()] == [before["id"]]
    draw()  # the failed attempt has not used up the id


def test_an_unwritable_folder_names_the_cure(chapter, sandbox):
    (sandbox / "_build").mkdir()
    (sandbox / "_build" / "figures").write_text("in the way")
    with pytest.raises(EssayError, match="Make the folder writable"):
        draw()


def test_long_data_is_kept_as_parquet(chapter):
    data = pd.DataFrame({"x": np.arange(figures.CSV_ROWS + 1)})
    record = draw(data=data)
    assert record["data"]["file"] == "data.parquet"
    found = pd.read_parquet(figures.folder(record["id"]) / "data.parquet")
    pd.testing.assert_frame_equal(found, data)


def test_an_index_with_names_becomes_a_column(chapter):
    record = draw(data=pd.DataFrame({"x": [1]}, index=pd.Index(["a"], name="vendor")))
    assert record["data"]["columns"] == ["vendor", "x"]


def test_a_crowded_drawing_is_kept_as_pixels(chapter, monkeypatch):
    monkeypatch.setattr(figures, "SVG_BYTES", 100)
    assert draw()["image"]["file"] == "figure.png"
    assert not (figures.folder("guidance-concentration") / "figure.svg").exists()


def test_loading_a_figure_that_was_not_drawn_names_the_cure(chapter):
    draw()
    with pytest.raises(EssayError, match="`essay figures` lists") as unknown:
        figures.load("guidance-concentratoin")
    assert "Did you mean 'guidance-concentration'?" in str(unknown.value)


@pytest.fixture
def shell(chapter):
    from IPython.core.interactiveshell import InteractiveShell

    found = InteractiveShell.instance()
    found.push({"draw": draw, "sheet": sheet})
    yield found
    InteractiveShell.clear_instance()


def run(shell, code):
    from IPython.utils.capture import capture_output

    with capture_output() as captured:
        result = shell.run_cell(code, store_history=True)
    result.raise_error()
    return captured.outputs


@pytest.mark.parametrize("call", ["draw();", "sheet();"])
def test_a_notebook_shows_image_caption_and_commands_and_marks_the_output(shell, call):
    (output,) = run(shell, call)
    page, mark = output.data["text/html"], output.metadata[figures.MIME]
    record = figures.load(mark["id"])
    assert f'alt="{record["alt"]}"' in page and record["caption"] in page
    assert 'src="data:image/' in page and "http" not in page
    assert f"essay cite {mark['id']}" in page and f"essay verify {mark['id']}" in page
    assert mark["image"]["file"] == record["image"]["file"]
    assert record["alt"] in output.data["text/plain"]
    assert record["cell"]["source"] == call


def test_running_a_cell_again_in_a_notebook_replaces_with_a_warning(shell):
    run(shell, "draw();")
    with pytest.warns(UserWarning, match="replaces the one drawn before"):
        run(shell, "draw();")


def test_in_a_build_a_second_use_is_an_error(shell, monkeypatch):
    monkeypatch.setenv("ESSAY_CHAPTER", "guidance")
    run(shell, "draw();")
    with pytest.raises(EssayError, match="used twice"):
        run(shell, "draw();")


def test_a_published_book_has_links_under_the_figure(shell, sandbox):
    (sandbox / "_config.yml").write_text("html: {baseurl: 'https://book.example.org/'}\n")
    (output,) = run(shell, "draw();")
    address = "https://book.example.org/fig/guidance-concentration/"
    for word in ("cite", "data", "code", "verify"):
        assert f'href="{address}#{word}"' in output.data["text/html"]
    assert address in figures.load("guidance-concentration")["citation"]


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"data": 5}, "data is the table"),
        ({"data": {"a": [1, 2], "b": [1]}}, "data is the table"),
        ({"data": pd.DataFrame([[1, 2]], columns=["a", "a"])}, "two columns called 'a'"),
        ({"caption": "By {n.width}."}, "not among its values"),
    ],
)
def test_data_that_is_no_table_is_refused_in_words(chapter, settings, words):
    with pytest.raises(EssayError, match=words):
        draw(**settings)


def test_a_claim_that_there_is_not_is_refused_before_anything_is_drawn(chapter):
    folder = paths.book()
    folder.mkdir(parents=True, exist_ok=True)
    real = Path(essaylib.__file__).parents[2] / "book" / "claims.yml"
    (folder / "claims.yml").write_bytes(real.read_bytes())
    with pytest.raises(EssayError, match="no claim 'nope'"):
        draw(claim="nope")
    assert not figures.ids()


def test_provenance_that_was_cut_off_is_named_with_its_cure(chapter):
    draw()
    path = figures.folder("guidance-concentration") / "provenance.json"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(EssayError, match="damaged.*essay run"):
        figures.load("guidance-concentration")
