"""A tiny book in a folder of its own, with a tiny library, for tests of running and building."""

import shutil
from concurrent.futures import Executor, Future
from pathlib import Path

import essaylib

FRONT = "---\nkernelspec:\n  name: python3\n  display_name: Python 3\n---\n"
PARAMETERS = (
    '```{code-cell} ipython3\n:tags: [parameters]\nmodel = "embedded"\nseed = 0\n'
    'device = "auto"\nsamples = 4\nscale = 1.5\n```\n'
)
LIBRARY = {
    "alpha": '"""Alpha."""\n\ndef f():\n    """Double."""\n    from essaylib.beta import g\n'
    "    return 2 * g()\n",
    "beta": "def g():\n    return 21\n",
    "gamma": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from essaylib import beta\n"
    "def h():\n    return 7\n",
    "runs": "def load(name):\n    return name\n",
    "claims": "RULE = 1\n",
    "measures/__init__": '"""One module a measure."""\n',
    "measures/vendi": "def score():\n    return 1.0\n",
}


REPOSITORY = Path(__file__).parents[1]


class Inline(Executor):
    """Runs each job at once in this process: a stand-in for a cluster's executor."""

    def submit(self, function, /, *args, **kwargs):
        future = Future()
        future.set_result(function(*args, **kwargs))
        return future


class Book:
    """Chapters, a library and data under one folder; each method edits it."""

    def __init__(self, root: Path):
        self.root = root
        (root / "book").mkdir(parents=True, exist_ok=True)
        (root / "book/index.md").write_text("# The tiny book\n")
        for name in ("_config.yml", "CITATION.cff", "book/_static/favicon.svg"):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, root / name)
        self.write("data/corpus/corpus.parquet", "drawings")
        self.write("models/emoji-ldm/unet.safetensors", "weights")
        self.contents()
        library = root / "src/essaylib"
        for name in ("__init__", "errors", "paths", "glue"):
            self.write(library / f"{name}.py", source(name))
        for name, text in LIBRARY.items():
            self.write(library / f"{name}.py", text)

    def write(self, path, text):
        path = self.root / path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def edit(self, path, old, new):
        text = (self.root / path).read_text()
        assert old in text
        self.write(path, text.replace(old, new))

    def contents(self):
        chapters = sorted(p.stem for p in (self.root / "book").glob("*.md") if p.stem != "index")
        files = "".join(f"- file: book/{id}\n" for id in chapters)
        self.write(
            "_toc.yml", "format: jb-book\nroot: book/index\n" + "chapters:\n" * bool(files) + files
        )

    def chapter(self, id, *cells, prose="Some prose.", parameters=PARAMETERS):
        code = "\n".join(f"```{{code-cell}} ipython3\n{cell}\n```\n" for cell in cells)
        self.write(f"book/{id}.md", f"{FRONT}\n# The {id}\n\n{parameters}\n{prose}\n\n{code}")
        self.contents()


def source(name):
    return (Path(essaylib.__file__).parent / f"{name}.py").read_text()
