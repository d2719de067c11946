"""A browser to look at pages with, and a server to look at them from."""

import functools
import shutil
import threading
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip


@contextmanager
def browser():
    """Headless Chromium; the test is skipped where PATH has none."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip(f"needs one of {', '.join(NAMES)} on PATH")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        found = play.chromium.launch(executable_path=path, args=FLAGS, timeout=120_000)
        yield found
        found.close()


@contextmanager
def served(folder):
    """Serve a folder on the loopback address, on a free port."""
    server = ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(_Silent, directory=str(folder))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def faults(browser, address, page, width, scheme):
    """What a reader of a page would object to, by kind: an empty dict where there is nothing.

    Requests to another host or without an answer, words on the console, a page wider than the
    screen, and what axe finds serious or critical.
    """
    from axe_playwright_python.sync_playwright import Axe

    tab = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    asked, told = [], []
    tab.on("response", lambda answer: asked.append((answer.url, answer.status)))
    tab.on("console", lambda word: word.type in ("error", "warning") and told.append(word.text))
    tab.on("pageerror", lambda error: told.append(str(error)))
    tab.goto(f"{address}/{page}", wait_until="load")
    local = (f"{address}/", "data:")
    elsewhere = [x for x in asked if not x[0].startswith(local) or x[1] >= 400]
    said = list(told)  # axe fetches style sheets by itself, and may say so
    wide = tab.evaluate("document.documentElement.scrollWidth") > width
    grave = [
        (v["id"], v["nodes"][0]["target"])
        for v in Axe().run(tab).response["violations"]
        if v["impact"] in ("serious", "critical")
    ]
    tab.close()
    found = {"requests": elsewhere, "console": said, "too wide": wide, "axe": grave}
    return {kind: what for kind, what in found.items() if what}


class _Silent(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass
