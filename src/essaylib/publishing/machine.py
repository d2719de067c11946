"""The machine as a table of contents: the parts of a latent diffusion model, in the order in which
a drawing and an order pass through them, each leading to the chapter that measures it.

The preface says where the map stands with the comment `<!-- machine -->`, which a notebook does
not show. A part whose chapter is not in `_toc.yml` is drawn without a link.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from essaylib import paths
from essaylib.publishing import cite
from essaylib.publishing.chapters import chapters
from essaylib.publishing.templating import render

MARK = "<!-- machine -->"


@dataclass(frozen=True)
class Part:
    """One part of the machine: the chapter that opens it, what it is, and its drawing.

    `icon` is the inside of an SVG of 24 by 24 units, drawn in lines of the text's colour.
    """

    chapter: str
    name: str
    icon: str


STAGES: tuple[tuple[str, tuple[Part, ...]], ...] = (
    (
        "Before the model",
        (
            Part(
                "values",
                "The drawings",
                '<circle cx="7" cy="7" r="3.5"/><path d="M13.5 3.5h7v7h-7z"/>'
                '<path d="M7 13.5l4 7H3z"/><path d="M17 13l4 4-4 4-4-4z"/>',
            ),
            Part(
                "method",
                "The instrument",
                '<path d="M2 8h20v8H2z"/><path d="M6 8v3M10 8v5M14 8v3M18 8v5"/>',
            ),
            Part(
                "captions",
                "The tokenizer",
                '<path d="M2 8h8v8H2zM12 8h4v8h-4zM18 8h4v8h-4z"/><path d="M4.5 12h3"/>',
            ),
            Part(
                "filters",
                "The filter",
                '<path d="M2 12h20" stroke-dasharray="3 2"/><circle cx="6" cy="6" r="2"/>'
                '<circle cx="12" cy="7" r="2"/><circle cx="18" cy="5" r="2"/>'
                '<circle cx="9" cy="18" r="2" class="full"/>'
                '<circle cx="16" cy="18" r="2" class="full"/>',
            ),
        ),
    ),
    (
        "Training, or made commensurable",
        (
            Part(
                "clip",
                "CLIP",
                '<path d="M4 20L19 5M13.5 4.5L19 5l.5 5.5"/>'
                '<path d="M4 20L21 15M17 13l4 2-2.5 3.5"/>',
            ),
            Part(
                "autoencoder",
                "The autoencoder",
                '<path d="M2 3l8 6v6l-8 6zM22 3l-8 6v6l8 6z"/><path d="M10 12h4"/>',
            ),
            Part(
                "noise",
                "The noise",
                '<circle cx="7" cy="12" r="4.5"/>'
                '<path d="M13.5 8h0M14.5 12h0M13.5 16h0M17 6h0M18 10h0'
                'M17.5 14h0M17 18h0M21 8h0M21.5 13h0M20.5 17h0" stroke-width="2"/>',
            ),
            Part(
                "unet",
                "The U-Net",
                '<path d="M3 3v9c0 5 4 9 9 9s9-4 9-9V3"/>'
                '<path d="M7 6h10M8 11h8" stroke-dasharray="2 2"/>',
            ),
            Part(
                "loss",
                "The loss",
                '<path d="M3 4c2 20 16 20 18 0"/><circle cx="12" cy="19" r="2" class="full"/>',
            ),
        ),
    ),
    (
        "Generation, or the sale",
        (
            Part(
                "prompt-seed",
                "Prompt and seed",
                '<path d="M2 4h12v7H7l-3 3v-3H2z"/>'
                '<path d="M12 20h0M15 17h0M18 20h0M21 16h0M18 14h0'
                'M21 20h0M15 21h0M21 12h0" stroke-width="2"/>',
            ),
            Part(
                "attention",
                "Cross-attention",
                '<path d="M12 3h9v9h-9zM12 7.5h9M16.5 3v9"/>'
                '<path d="M16.5 3h4.5v4.5h-4.5z" class="full"/>'
                '<path d="M2 20h6"/><path d="M7 17L15 9"/>',
            ),
            Part(
                "guidance",
                "Guidance",
                '<path d="M4 21L11 5M9 6.5L11 5l1 2.5"/><path d="M4 21l9-7M10 14.5l3-.5-.5 3"/>'
                '<path d="M13 14l8-6" stroke-dasharray="2.5 2"/>',
            ),
            Part(
                "delivery",
                "Sampler and decoder",
                '<path d="M2 4h4v5h4v5h4v5h3"/><path d="M17 15h5v6h-5z"/>',
            ),
        ),
    ),
    (
        "Against the commodity form alone",
        (
            Part(
                "copies",
                "The pictures",
                '<path d="M3 3h11v11H3zM10 10h11v11H10z"/><path d="M10 10h4v4h-4z" class="full"/>',
            ),
            Part(
                "credit",
                "The makers",
                '<path d="M3 3h18v18H3zM3 9h18M3 15h18M14 3v18"/>',
            ),
            Part(
                "leaving",
                "The exits",
                '<path d="M13 3H4v18h9"/><path d="M9 12h12M17 8l4 4-4 4"/>',
            ),
            Part(
                "survival",
                "Other models",
                '<path d="M3 3h18v18H3zM9 3v18M15 3v18M3 9h18M3 15h18"/>'
                '<path d="M3 3h6v6H3zM15 3h6v6h-6zM9 9h6v6H9z" class="full"/>',
            ),
            Part(
                "unmeasured",
                "What stayed outside",
                '<circle cx="12" cy="12" r="9" stroke-dasharray="3 3"/>',
            ),
        ),
    ),
)


def nav(verdicts: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the map as one block of HTML for a page of the folder `book`.

    `verdicts` holds what each claim's chapter recorded, by claim id (`claims.recorded`).
    """
    known = {chapter.id for chapter in chapters()}
    found: dict[str, list[Mapping[str, Any]]] = {}
    for verdict in verdicts.values():
        found.setdefault(verdict["chapter"], []).append(verdict)
    stages = [
        {
            "name": name,
            "parts": [
                {
                    "part": part,
                    "title": cite.heading(paths.book() / f"{part.chapter}.md")
                    if part.chapter in known
                    else "",
                    "verdicts": found.get(part.chapter, []) if part.chapter in known else [],
                }
                for part in parts
            ],
        }
        for name, parts in STAGES
    ]
    return render("machine.html", stages=stages)
