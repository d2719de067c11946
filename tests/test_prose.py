"""What every chapter owes its reader: computed numbers, and cells short enough to read."""

import ast
import re

import pytest

from essaylib import paths
from essaylib.publishing.chapters import Chapter, code_cells, is_chapter, parse, read

MOST_LINES = 10
MOST_COLUMNS = 79
HIDDEN = {"hide-input", "remove-input"}
CHAPTERS = sorted(path.stem for path in paths.book().glob("*.md") if is_chapter(path))

# What may hold a digit, in the order in which it is taken out of a page's text.
EXEMPT = [
    r"^(?P<fence>`{3,}|~{3,}).*?^(?P=fence)",  # code blocks and directives
    r"\$\$.+?\$\$",  # formulas
    r"(?<!\\)\$[^$]+?\$",
    r"\{[\w:-]+\}(?P<role>`+).+?(?P=role)",  # roles: citations, glued and fixed numbers, terms
    r"(?P<code>`+).+?(?P=code)",
    r"\[[^\]]*\]\([^)]*\)|<https?://[^>]*>|https?://\S+",  # links
    r"^#+ [^\n]*",  # headings
    r"^\s*\d+\.(?= )",  # the numbers of a list
    r"\b(?:1[89]|20)\d\d\b",  # years
]


def prose(markdown):
    """The words of a page: without what may hold a digit."""
    for pattern in EXEMPT:
        markdown = re.sub(pattern, " ", markdown, flags=re.MULTILINE | re.DOTALL)
    return markdown


def typed_digits(markdown):
    """The words with a digit that somebody typed."""
    return re.findall(r"\S*\d\S*", prose(markdown))


def lines_of_code(source):
    """Lines that are not blank and do not lie among the arguments of a call of `figure`."""
    arguments = set()
    for node in ast.walk(parse(source)):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "figure":
            given = [*node.args, *(keyword.value for keyword in node.keywords)]
            last = max(argument.end_lineno for argument in given)
            arguments |= set(range(node.lineno + 1, last + 1))
    lines = enumerate(source.splitlines(), start=1)
    return sum(bool(line.strip()) and number not in arguments for number, line in lines)


def is_hidden(cell):
    return bool(HIDDEN & set(cell.metadata.get("tags", ())))


@pytest.fixture(params=CHAPTERS)
def chapter(request):
    return read(Chapter(f"book/{request.param}"))


def test_no_number_of_the_prose_is_typed(chapter):
    found = [
        f"line {line}: {word}"
        for line, cell in zip(chapter.metadata.source_map, chapter.cells, strict=True)
        if cell.cell_type == "markdown"
        for word in typed_digits(cell.source)
    ]
    assert not found, f"glue it, or write {{fixed}}`…` where nothing computes it: {found}"


def test_cells_are_short_enough_to_read(chapter):
    found = [
        f"line {line}: {count} lines"
        for line, cell in code_cells(chapter)
        if (count := lines_of_code(cell.source) if is_hidden(cell) else cell.source.count("\n") + 1)
        > MOST_LINES
    ]
    assert not found, f"more than {MOST_LINES} lines; move what is long into essaylib: {found}"


def test_visible_cells_fit_the_column(chapter):
    found = [
        line
        for _, cell in code_cells(chapter)
        if not is_hidden(cell)
        for line in cell.source.splitlines()
        if len(line) > MOST_COLUMNS
    ]
    assert not found, f"more than {MOST_COLUMNS} columns: {found}"


@pytest.mark.parametrize(
    ("markdown", "words"),
    [
        ("Of 5,901 drawings, 12% went.", ["5,901", "12%"]),
        ("In 2021 they wrote {cite}`ho2022cfg`, at $w = 7.5$:\n\n$$\nx_0\n$$\n", []),
        ("{glue:text}`n-2` and {fixed}`1.5`, `f(3)`, [two 2](v2.md), <https://a.b/3>", []),
        ("## Part 2\n\n1. first\n2. second\n\n```sh\nmake 3\n```\n", []),
        ("The price is 20 or 20219, not \\$5.", ["20", "20219,", "\\$5."]),
    ],
)
def test_digits_are_found_where_prose_holds_them(markdown, words):
    assert typed_digits(markdown) == words


def test_arguments_of_a_figure_are_not_counted():
    source = 'x = 1\n\nwith figure(\n    "id",\n    data={\n        "y": 1},\n) as f:\n    g()\n'
    assert lines_of_code(source) == 4
    assert lines_of_code('with figure("id",\n            alt="a") as fig:\n    draw(fig)') == 2
