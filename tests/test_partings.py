"""Overlaps of figure and ground on a tiny network, shipped and checked."""

from pathlib import Path

import numpy as np
import pytest

from essaylib import claims, composites, corpus, features, partings
from essaylib.errors import EssayError


@pytest.fixture
def given(tiny, sandbox, monkeypatch):
    """What the chapter makes: pipeline, drawings, latents, masks and seed."""
    whole = corpus.load(Path(__file__).resolve().parents[1] / "data/corpus/corpus.parquet")
    monkeypatch.setattr(partings, "load_corpus", lambda: whole)
    monkeypatch.setattr(partings, "DRAWINGS", 3)
    monkeypatch.setattr(claims, "seeds", lambda count: [5])
    pipe = tiny("embedded")
    drawn = composites.chosen(whole.where(split=partings.SPLITS), 3, seed=5)
    pictures = composites.set_on(drawn.rgba(), composites.grounds(3, seed=5))
    latents = features.latents(pipe.vae, composites.fitted(pictures, pipe))
    return pipe, drawn, latents, composites.masks(drawn.rgba()), 5


def test_rows_are_parted_as_among_all(given):
    pipe, _, latents, masks, seed = given
    every = partings.measured(pipe, latents, masks, seed)
    some = partings.measured(pipe, latents, masks, seed, [2, 0])
    assert list(every) == ["trained", "untrained", "colour", partings.CUT]
    for name, found in some.items():
        assert found == pytest.approx(every[name][[2, 0]], abs=1e-3)


def test_shipped_overlaps_are_those_that_the_chapter_asks_for(given, monkeypatch):
    pipe, drawn, latents, masks, seed = given
    plain = partings.overlaps(pipe, drawn, latents, masks, seed)
    partings.ship(pipe)
    monkeypatch.setattr(partings.rechecked, "AGAIN", 1)
    rows = []
    measured = partings.measured
    monkeypatch.setattr(partings, "measured", lambda *a: rows.append(a[-1]) or measured(*a))
    found = partings.overlaps(pipe, drawn, latents, masks, seed)
    assert [len(some) for some in rows] == [1]
    assert all(np.allclose(found[name], plain[name], atol=1e-3) for name in plain)
    with pytest.raises(EssayError, match="does not come out again"):
        partings.overlaps(pipe, drawn, latents, ~masks, seed)
