"""MyST Markdown as the plain Markdown that any notebook shows.

Roles and directives are given as functions, so that what they come to is decided by the caller.
Code and formulas pass as they are; comments and targets, which only Sphinx reads, are left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TypeAlias

from essaylib.errors import EssayError

Role: TypeAlias = Callable[[str], str]
"""Takes what stands between the role's backticks and returns Markdown."""

Link: TypeAlias = Callable[[str, str], str]
"""Takes the words and the target of a link and returns Markdown."""

_FENCE = re.compile(
    r"^(?P<fence>`{3,}|~{3,}|:{3,})(?:\{(?P<name>[\w:-]+)\}[ \t]*(?P<argument>[^\n]*)|[^\n`]*)\n"
    r"(?P<body>.*?)^(?P=fence)[ \t]*$",
    re.MULTILINE | re.DOTALL,
)
_INLINE = re.compile(
    r"\{(?P<role>[a-zA-Z][\w:-]*)\}(?P<ticks>`+)(?P<content>.+?)(?P=ticks)"
    r"|(?P<code>(?P<tick>`+).+?(?P=tick))"
    r"|\$\$(?P<block>.+?)\$\$(?:[ ]*\((?P<label>[\w:-]+)\))?"
    r"|(?P<math>(?<!\\)\$[^$]+?\$)"
    r"|(?<!!)\[(?P<words>[^\[\]]*)\]\((?P<target>[^()\s]+)\)"
    r"|(?P<unseen>^(?:%[^\n]*|\([\w-]+\)=)(?:\n|\Z))",
    re.MULTILINE | re.DOTALL,
)
_LABEL = re.compile(r"\$\$[ ]*\(([\w:-]+)\)|^:label:[ ]*([\w:-]+)", re.MULTILINE)
_OPTION = re.compile(r"\A(?::[\w-]+:[^\n]*\n)+")
_ADMONITIONS = (
    "admonition", "attention", "caution", "danger", "error", "hint", "important", "note",
    "seealso", "tip", "warning",
)  # fmt: skip


def convert(
    markdown: str, roles: Mapping[str, Role], link: Link, numbers: Mapping[str, int]
) -> str:
    """Return MyST Markdown as plain Markdown.

    Admonitions become quotations, `math` a formula; `numbers` are those of labelled formulas.
    Raises `EssayError` for a role that is not among `roles` and for a directive that has no form in
    a notebook.
    """

    def inline(text: str) -> str:
        return _INLINE.sub(one, text)

    def one(found: re.Match[str]) -> str:
        if found["role"]:
            if found["role"] not in roles:
                raise EssayError(f"The role {{{found['role']}}} has no form in a notebook.")
            return roles[found["role"]](" ".join(found["content"].split()))
        if found["block"]:
            return _formula(found["block"], numbers.get(found["label"]))
        if found["target"]:
            return link(inline(found["words"]), found["target"])
        return "" if found["unseen"] else found[0]

    def directive(found: re.Match[str]) -> str:
        name, body = found["name"], found["body"]
        options = _OPTION.match(body)
        if name == "math":
            label = _LABEL.search(options[0]) if options else None
            formula = _OPTION.sub("", body).strip()
            return _formula(f"\n{formula}\n", numbers.get(label[2]) if label else None)
        if name in _ADMONITIONS:
            title = inline(found["argument"]) or name.capitalize()
            text = convert(_OPTION.sub("", body).strip(), roles, link, numbers)
            lines = [f"**{title}**", "", *text.split("\n")]
            return "\n".join(f"> {line}".rstrip() for line in lines)
        raise EssayError(f"The directive {{{name}}} has no form in a notebook.")

    parts, at = [], 0
    for found in _FENCE.finditer(markdown):
        parts.append(inline(markdown[at : found.start()]))
        parts.append(directive(found) if found["name"] else found[0])
        at = found.end()
    return "".join([*parts, inline(markdown[at:])])


def equations(markdown: str) -> dict[str, int]:
    """The numbers of the labelled formulas of a page, by label."""
    labels = [found[1] or found[2] for found in _LABEL.finditer(markdown)]
    return {label: number for number, label in enumerate(labels, start=1)}


def _formula(body: str, number: int | None) -> str:
    tag = rf"\tag{{{number}}}" if number else ""
    return f"$${body.rstrip()} {tag}\n$$" if tag else f"$${body}$$"
