"""What was read of the estimates, on a tiny network and eight concepts."""

import shutil

import numpy as np
import pytest
import torch

from essaylib import beliefs, corpus, features, store
from essaylib.errors import EssayError
from essaylib.statistics import loss

OTHER = np.array([1, 0, 2])  # the third is alone in its subgroup


@pytest.fixture
def drawn():
    return loss.complete(corpus.load(), 3, seed=2)


@pytest.fixture
def asked(drawn, tiny, sandbox):
    """A tiny pipeline, three concepts, their latents, and who is compared with whom."""
    latents = np.random.default_rng(0).normal(size=(3, 4, 4, 16, 16)).astype(np.float32)
    return tiny("embedded"), drawn, latents, OTHER


def test_readings_are_those_of_the_estimates(asked):
    pipe, drawn, latents, _ = asked
    found = beliefs.load(*asked, seed=3)
    names = drawn.table.concept.to_numpy()[::4]
    believed = loss.believed(pipe, latents, names, seed=3)
    weights, distances = loss.weights(believed, latents)
    assert found.weights == pytest.approx(weights, abs=1e-4)
    assert found.distances == pytest.approx(distances, abs=1e-4)
    assert found.foreign == pytest.approx(loss.weights(believed, latents[OTHER])[1], abs=1e-4)
    assert found.foreign[2] == pytest.approx(found.distances[2])


def test_estimates_are_made_once_for_what_they_depend_on(asked, monkeypatch):
    found = beliefs.load(*asked)
    pipe, drawn, _, other = asked
    name = beliefs.file_of(pipe, drawn, other)
    assert name != beliefs.file_of(pipe, drawn, other, seed=1)
    assert name != beliefs.file_of(pipe, drawn, other[::-1])
    for part in (pipe.unet, pipe.text_encoder):
        weight = next(part.parameters())
        with torch.no_grad():
            weight += 1
            assert name != beliefs.file_of(pipe, drawn, other)
            weight -= 1
    monkeypatch.setattr(loss, "believed", None)
    monkeypatch.setattr(beliefs, "file_of", lambda *_: name)
    assert np.array_equal(beliefs.load(*asked).weights, found.weights)


def test_what_ships_is_checked_and_what_is_damaged_made_again(asked, sandbox):
    (store.shipped()).mkdir(parents=True)
    (store.shipped() / "beliefs-of-old.npy").touch()
    (path,) = beliefs.ship(*asked)
    assert list(store.shipped().iterdir()) == [path]
    shutil.rmtree(sandbox / "_build")
    found = beliefs.load(*asked)
    assert not (sandbox / "_build").exists()
    features.save(path, np.load(path)[::-1])
    with pytest.raises(EssayError, match="does not come out again"):
        beliefs.load(*asked)
    path.write_bytes(path.read_bytes()[:-10])
    assert beliefs.load(*asked).weights == pytest.approx(found.weights, abs=1e-4)
