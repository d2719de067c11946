"""Distances of near-duplicates through a tiny autoencoder, shipped and checked."""

from pathlib import Path

import numpy as np
import pytest
import torch

from essaylib import corpus, duplicates
from essaylib.errors import EssayError
from essaylib.statistics import copies


@pytest.fixture
def training(sandbox, monkeypatch):
    whole = corpus.load(Path(__file__).resolve().parents[1] / "data/corpus/corpus.parquet")
    monkeypatch.setattr(duplicates, "load_corpus", lambda: whole)
    monkeypatch.setattr(duplicates, "COUNT", 6)
    monkeypatch.setattr(duplicates.rechecked, "AGAIN", 2)
    return whole.where(split="train")


def test_limits_are_those_of_the_near_duplicates(training, tiny):
    pipe, some = tiny("embedded"), duplicates.chosen(training, 1)
    wanted = copies.limits(some.rgb(), copies.near_duplicates(pipe, some.rgb(), 1))
    plain = duplicates.limits(pipe, some, 1)
    duplicates.ship(pipe, 1)
    read = duplicates.limits(pipe, some, 1)
    for found in (plain, read):
        assert found.image == pytest.approx(wanted.image)
        assert found.patch == pytest.approx(wanted.patch)
        assert found.recognised == wanted.recognised
        assert found.duplicates == pytest.approx(wanted.duplicates)


def test_shipped_distances_are_checked_and_belong_to_their_weights(training, tiny):
    pipe, some = tiny("embedded"), duplicates.chosen(training)
    path = duplicates.ship(pipe)
    found = duplicates.measured(pipe, some)
    wrong = {name: values.astype(np.float32) * 1.1 for name, values in found.items()}
    np.savez(path, **wrong)
    with pytest.raises(EssayError, match="does not come out again"):
        duplicates.limits(pipe, some)
    with torch.no_grad():
        next(pipe.vae.parameters()).add_(1)
    assert duplicates.limits(pipe, some).image > 0
