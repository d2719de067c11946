"""`figure`: the one door through which a picture enters the book.

It keeps the image, the numbers drawn and their provenance in `_build/figures/<id>/`, writes id,
commit and citation into the image file, and shows the whole in a notebook. The file is the same,
byte for byte, whenever the numbers are.

The schema of `provenance.json` is `figure.schema.json`, beside this module.
"""

import base64
import html
import io
import json
import os
import re
import shutil
import string
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib
import pandas as pd
import yaml
from matplotlib.figure import Figure
from PIL import Image

from essaylib import citation, glue, paths, plotting, rules, store
from essaylib.errors import EssayError, meant
from essaylib.provenance import plain, provenance, sha256
from essaylib.tolerance import fingerprint

SCHEMA = "essaylib.figure/1"
MIME = "application/vnd.essaylib.figure+json"
CSV_ROWS = 10_000  # longer data is kept as Parquet
SVG_BYTES = 600_000  # a larger drawing is kept as pixels
LICENCE = "CC BY 4.0"

_drawn: dict[str, glue.Chapter | None] = {}


@contextmanager
def figure(
    id: str,
    data: Any,
    caption: str,
    alt: str,
    tolerance: Mapping[str, Any] | float | None = None,
    size: tuple[float, float] | None = None,
    claim: str | None = None,
    values: Mapping[str, Any] | None = None,
    title: str | None = None,
    pipe: Any = None,
) -> Iterator[Figure]:
    """Draw on the figure that this yields; leaving the block keeps and shows it.

    `data` is the table of the numbers drawn (anything that `pandas.DataFrame` takes). `caption` and
    `alt` are templates: `{n}` is the number of rows, other names come from `values`; a number
    without a format gets three significant figures. `tolerance` is how far a second run may stray,
    by column (`essaylib.tolerance`). `size` is in inches, 7.2 wide by default. `claim` is the id of
    the claim that the figure bears on. `title` is for citations, the caption's first sentence by
    default. `pipe` is the pipeline that drew, described in the provenance.

    Raises `EssayError` for an id that is malformed, used twice or retired, an empty alt text, a
    placeholder without a value, and a folder that cannot be written. Nothing is kept when the
    block raises.
    """
    chapter = glue.current()
    _check_id(id, chapter)
    if claim and (paths.book() / "claims.yml").is_file():
        rules.load()[claim]  # refuses a claim that there is not
    table = _table(data)
    fields = {"n": len(table), **(values or {})}
    caption, alt = _fill("caption", caption, fields), _fill("alt", alt, fields)
    if not alt:
        raise EssayError(f"Figure {id} has no alt text: say what the picture shows.")
    if not caption:
        raise EssayError(f"Figure {id} has no caption.")
    record: dict[str, Any] = {
        "schema": SCHEMA,
        "id": id,
        "number": None,
        "title": title or _first_sentence(caption),
        "caption": caption,
        "alt": alt,
        "chapter": chapter.id if chapter else None,
        "cell": _cell(),
        "claim": {"id": claim, "verdict": None} if claim else None,
        "fingerprint": fingerprint(table, tolerance),
    }
    with plotting.style():
        drawing = plotting.new_figure(size)
        yield drawing
        record |= provenance(pipe, **(chapter.parameters if chapter else {}))
        record |= {
            "licence": LICENCE,
            "citation": cited(record).text(),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "wall_seconds": _since(chapter),
            "peak_mb": _peak_mb(),
        }
        folder = _keep(drawing, table, record)
    _drawn[id] = chapter
    _show(folder, record)


def load(id: str) -> dict[str, Any]:
    """The provenance of a figure that has been drawn; `EssayError` where it has not."""
    path = folder(id) / "provenance.json"
    if not path.is_file():
        chapter = registry().get(id, {}).get("chapter")
        cure = (
            f"Run its chapter: `essay run {chapter}`."
            if chapter
            else "`essay figures` lists those that there are."
        )
        near = "" if chapter else meant(id, {*registry(), *ids()})
        raise EssayError(f"No figure {id!r} has been drawn.{near} {cure}")
    again = "delete its folder, and run its chapter again: `essay run --force`"
    return store.read_json(path, again)


def ids() -> list[str]:
    """The ids of all figures that have been drawn, sorted."""
    return sorted(path.parent.name for path in _home().glob("[!.]*/provenance.json"))


def folder(id: str) -> Path:
    """Where a figure's image, data and provenance lie."""
    return _home() / id


def registry() -> dict[str, dict[str, str]]:
    """Every figure id that was ever published, from `book/figures.yml`.

    An entry names the `chapter`, or `redirect`, the id that took its place.
    """
    path = paths.book() / "figures.yml"
    if not path.is_file():
        return {}
    return (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get("figures") or {}


def cited(record: Mapping[str, Any]) -> citation.Citation:
    """The citation of the figure that `record`, its provenance, describes."""
    git = record.get("git") or {"commit": "", "clean": True}
    commit = git["commit"][:10] + ("" if git["clean"] else " with local changes")
    return citation.part("figure", record["id"], record["title"], commit)


def read(path: str | Path) -> dict[str, str]:
    """What an image file says of itself: id, commit and citation, wherever it has been moved."""
    path = Path(path)
    try:
        if path.suffix == ".svg":
            text = ElementTree.parse(path).findtext(".//{*}description") or ""
            found = json.loads(text)
        else:
            with Image.open(path) as image:
                found = {key: image.info[f"essaylib:{key}"] for key in ("id", "commit", "citation")}
    except FileNotFoundError:
        raise EssayError(f"There is no file {path}.") from None
    except (OSError, KeyError, ValueError, ElementTree.ParseError):
        raise EssayError(f"{path} is not a figure of this book: it carries no id.") from None
    return found


def _home() -> Path:
    return paths.build() / "figures"


def _check_id(id: str, chapter: glue.Chapter | None) -> None:
    if not isinstance(id, str) or not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)+", id):
        raise EssayError(
            f"{id!r} is not a figure id: write its chapter and what it shows in lower-case words "
            "joined by hyphens, such as 'guidance-sheet'."
        )
    entry = registry().get(id, {})
    if "redirect" in entry:
        raise EssayError(f"Figure id {id} is retired ({entry['redirect']} took its place).")
    owner = entry.get("chapter")
    if owner and chapter and owner != chapter.id:
        raise EssayError(f"Figure id {id} belongs to the chapter {owner}: choose another.")
    if id in _drawn and _drawn[id] is chapter:
        # A reader who runs a cell again in a notebook means to replace the figure.
        if _shell() is not None and "ESSAY_CHAPTER" not in os.environ:
            warnings.warn(f"Figure {id} replaces the one drawn before.", stacklevel=4)
        else:
            raise EssayError(f"Figure id {id} is used twice in one chapter: ids are unique.")


def _table(data: Any) -> pd.DataFrame:
    try:
        table = data if isinstance(data, pd.DataFrame) else pd.DataFrame(data)
    except (TypeError, ValueError) as error:
        raise EssayError(f"A figure's data is the table of what it draws: {error}.") from None
    if table.empty:
        raise EssayError("A figure's data is the table of what it draws; this one is empty.")
    if not isinstance(table.index, pd.RangeIndex):
        table = table.reset_index()
    names = [str(name) for name in table.columns]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise EssayError(f"A figure's data has two columns called {twice[0]!r}: rename one.")
    return table.set_axis(names, axis=1)


class _Template(string.Formatter):
    """`str.format` whose numbers have three significant figures unless a format says otherwise."""

    def format_field(self, value: Any, format_spec: str) -> str:
        return format(value, format_spec) if format_spec else glue.as_text(value)


def _fill(what: str, template: str, fields: Mapping[str, Any]) -> str:
    try:
        text = _Template().vformat(template, (), fields)
    except (KeyError, IndexError, AttributeError) as error:
        raise EssayError(
            f"The {what} asks for {{{error.args[0]}}}, which is not among its values: "
            f"{', '.join(sorted(fields))}. Pass it in values=."
        ) from None
    except ValueError as error:
        raise EssayError(
            f"The {what} is not a template: {error}. Write {{{{ for a brace."
        ) from None
    return " ".join(text.split())


def _first_sentence(caption: str) -> str:
    sentence = re.split(r"(?<=[^\s.])\. (?=[^a-z])", caption, maxsplit=1)[0].rstrip(".")
    return sentence if len(sentence) <= 140 else sentence[:139].rsplit(" ", 1)[0] + "…"


def _cell() -> dict[str, Any] | None:
    """The notebook cell that draws: its count and its code."""
    shell = _shell()
    if shell is None:
        return None
    history = shell.history_manager
    source = history.input_hist_raw[-1] if history else ""
    return {"execution_count": shell.execution_count, "source": source}


def _shell() -> Any:
    try:
        from IPython import get_ipython
    except ImportError:
        return None
    return get_ipython()


def _since(chapter: glue.Chapter | None) -> float | None:
    if chapter is None:
        return None
    return round((datetime.now(UTC) - datetime.fromisoformat(chapter.started)).total_seconds(), 1)


def _peak_mb() -> float | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if os.uname().sysname == "Darwin" else 2**10), 1)


def _keep(drawing: Figure, table: pd.DataFrame, record: dict[str, Any]) -> Path:
    """Write the bundle beside its place, then move it there whole."""
    place = folder(record["id"])
    fresh = place.with_name(f".{place.name}.{os.getpid()}")
    try:
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        record["image"] = _save_image(drawing, fresh, record)
        record["data"] = _save_data(table, fresh)
        text = json.dumps(plain(record), indent=2, ensure_ascii=False)
        (fresh / "provenance.json").write_text(text + "\n", encoding="utf-8")
        if place.exists():
            shutil.rmtree(place)
        fresh.rename(place)
    except OSError as error:
        raise EssayError(
            f"Cannot write the figure to {place}: {error.strerror or error}. Make the folder "
            "writable, or free some disk space."
        ) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return place


def _save_image(drawing: Figure, target: Path, record: Mapping[str, Any]) -> dict[str, Any]:
    commit = (record["git"] or {}).get("commit", "unknown")
    identity = {"id": record["id"], "commit": commit, "citation": record["citation"]}
    pixels = any(ax.images for ax in drawing.axes)
    path = target / "figure.svg"
    if not pixels:
        with matplotlib.rc_context({"svg.hashsalt": record["id"]}):
            buffer = io.BytesIO()
            drawing.savefig(
                buffer,
                format="svg",
                metadata={
                    "Title": record["title"],
                    "Identifier": record["id"],
                    "Description": json.dumps(identity, ensure_ascii=False),
                    "Rights": LICENCE,
                    "Creator": cited(record).author,
                    "Date": None,
                },
            )
        pixels = len(buffer.getvalue()) > SVG_BYTES
        path.write_bytes(buffer.getvalue())
    if pixels:
        path.unlink(missing_ok=True)
        path = target / "figure.png"
        drawing.savefig(
            path,
            dpi=plotting.DPI,
            metadata={
                "Title": record["title"],
                "Author": cited(record).author,
                "Description": record["alt"],
                "Copyright": LICENCE,
                "Software": "essaylib",
                **{f"essaylib:{key}": value for key, value in identity.items()},
            },
        )
    width, height = (round(side * plotting.CSS_DPI) for side in drawing.get_size_inches())
    return {"file": path.name, "sha256": sha256(path), "width": width, "height": height}


def _save_data(table: pd.DataFrame, target: Path) -> dict[str, Any]:
    if len(table) <= CSV_ROWS:
        path = target / "data.csv"
        table.to_csv(path, index=False, lineterminator="\n")
    else:
        path = target / "data.parquet"
        table.to_parquet(path, index=False)
    columns = [str(name) for name in table.columns]
    return {"file": path.name, "sha256": sha256(path), "rows": len(table), "columns": columns}


def _show(place: Path, record: Mapping[str, Any]) -> None:
    """Show the figure in a notebook, with what the build needs to number and link it."""
    if _shell() is None:
        return
    from IPython.display import display

    image = record["image"]
    kind = "image/svg+xml" if image["file"].endswith(".svg") else "image/png"
    encoded = base64.b64encode((place / image["file"]).read_bytes()).decode("ascii")
    caption, alt = html.escape(record["caption"]), html.escape(record["alt"], quote=True)
    page = (
        f'<figure><img src="data:{kind};base64,{encoded}" alt="{alt}" width="{image["width"]}" '
        f'style="max-width:100%;height:auto"><figcaption><p>{caption}</p>'
        f"<p>{_links(record, place)}</p></figcaption></figure>"
    )
    kept = ("id", "number", "title", "caption", "alt", "chapter", "claim", "image")
    bundle = {
        "text/plain": f"Figure {record['id']}: {record['caption']}\n{record['alt']}",
        "text/html": page,
    }
    display(bundle, raw=True, metadata={MIME: {key: plain(record[key]) for key in kept}})


def _links(record: Mapping[str, Any], place: Path) -> str:
    """The line under a figure: links where the book is published, commands where it is not."""
    url = cited(record).url
    if url:
        words = ("Cite", "Data", "Code", "Verify")
        return " / ".join(f'<a href="{url}#{word.lower()}">{word}</a>' for word in words)
    id, data = record["id"], html.escape(str(place / record["data"]["file"]))
    return (
        f"Cite: <code>essay cite {id}</code> / Data and code: <code>{data}</code>, "
        f"<code>provenance.json</code> / Verify: <code>essay verify {id}</code>"
    )
