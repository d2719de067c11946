"""How the book and its parts are cited: one record, read from CITATION.cff.

Figures carry their citation inside the image file, so this belongs to the core;
`essaylib.publishing.cite` writes the same record as BibTeX, CSL-JSON, RIS and text.
"""

import re
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from essaylib import paths
from essaylib.errors import EssayError


@dataclass(frozen=True)
class Citation:
    """What a reader cites: the book, a chapter or a figure of it."""

    key: str
    kind: str  # book, chapter or figure
    title: str
    author: str
    date: str  # ISO, the day of the release
    version: str
    url: str = ""
    doi: str = ""
    book: str = ""  # the book's title, for its parts
    commit: str = ""
    companion: str = ""  # the paper to be cited beside it

    @property
    def year(self) -> str:
        return self.date[:4]

    def text(self) -> str:
        """One paragraph, which asks that the paper be cited too."""
        title = re.sub(r"[.\s]+$", "", self.title)
        if self.kind == "book":
            parts = [f"{self.author} ({self.year}). {title} (version {self.version})."]
        else:
            label = f" [Figure {self.key}]" if self.kind == "figure" else ""
            parts = [
                f"{self.author} ({self.year}). “{title}”{label}. In {self.book} "
                f"(version {self.version}{f', commit {self.commit}' if self.commit else ''})."
            ]
        if self.doi:
            parts.append(f"https://doi.org/{self.doi}.")
        if self.url:
            parts.append(f"{self.url}.")
        parts.append(f"Please also cite: {self.companion}")
        return " ".join(parts)


def book() -> Citation:
    """The citation of the whole book."""
    return _book(paths.root() / "CITATION.cff", addresses())


def part(kind: str, id: str, title: str, commit: str = "") -> Citation:
    """The citation of a chapter or a figure, at its own address."""
    whole = book()
    site = addresses()[0]
    place = f"fig/{id}/" if kind == "figure" else f"book/{id}.html"
    return replace(
        whole,
        key=id,
        kind=kind,
        title=title,
        book=whole.title,
        url=f"{site}/{place}" if site else "",
        commit=commit,
    )


def addresses() -> tuple[str, str]:
    """The site's address and the repository's, from `_config.yml`; empty while there is none."""
    config = _yaml(paths.root() / "_config.yml") if _config().is_file() else {}
    sphinx = (config.get("sphinx") or {}).get("config") or {}
    site = (config.get("html") or {}).get("baseurl") or sphinx.get("html_baseurl") or ""
    repository = (config.get("repository") or {}).get("url") or ""
    return site.rstrip("/"), repository.rstrip("/")


def _config() -> Path:
    return paths.root() / "_config.yml"


@lru_cache(maxsize=4)
def _book(path: Path, found: tuple[str, str]) -> Citation:
    cff = _yaml(path)
    paper = cff["references"][0]
    return Citation(
        key="market-in-the-model-measured",
        kind="book",
        title=cff["title"],
        author=cff["authors"][0]["name"],
        date=str(cff["date-released"]),
        version=str(cff["version"]),
        url=cff.get("url") or found[0],
        doi=cff.get("doi", ""),
        companion=_reference(paper),
    )


def _reference(paper: dict[str, Any]) -> str:
    author = paper["authors"][0]
    identifiers = "".join(f" {item['value']}." for item in paper.get("identifiers", []))
    return (
        f"{author['family-names']}, {author['given-names']} ({paper['year']}). "
        f"{paper['title']}.{identifiers} {paper['url']}"
    )


def _yaml(path: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise EssayError(f"{path} is missing: restore it from the repository.") from None
    except yaml.YAMLError as error:
        raise EssayError(f"{path} is not valid YAML: {error}") from None
    return found or {}
