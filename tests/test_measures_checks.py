"""What measures are not given: each case is refused in words, and none is measured in silence."""

import numpy as np
import pytest

from essaylib.errors import EssayError
from essaylib.measures import (
    agreement,
    bootstrap,
    calibration,
    checks,
    concentration,
    correlation,
    decay,
    neighbours,
    survival,
    vendi,
)
from essaylib.measures.permutation import Null
from essaylib.power import sample_size

X = np.arange(12.0).reshape(4, 3)
IMAGES = np.zeros((2, 16, 16, 3))


@pytest.mark.parametrize(
    "measure, words",
    [
        (lambda: checks.finite("many", "x"), "must hold numbers"),
        (lambda: checks.finite([[1, 2], [3]], "x"), "rows of one length"),
        (lambda: bootstrap.mean(X[0], draws=0), "give no interval"),
        (lambda: bootstrap.bootstrap(lambda rows: 0.0, 4, draws=0), "give no interval"),
        (lambda: bootstrap.crossed(lambda r, c: 0.0, 4, 4, draws=0), "give no interval"),
        (lambda: survival.curves(X, list("abc"), draws=0), "give no interval"),
        (lambda: Null(1.0, np.array([])).p, "without draws"),
        (lambda: agreement.total_variation([1, 2], [1, 2, 3]), "do not pair"),
        (lambda: agreement.vendor_shares(X[0], np.array([0, 1])), "3 labels"),
        (lambda: decay.outlives([0, 1, 2], X, X[:3]), "must pair"),
        (lambda: correlation.within_groups(X[0], X[:, 0], [0, 0, 1]), "must pair"),
        (lambda: neighbours.nearest(X[:2], X, own=[0]), "2 labels"),
        (lambda: neighbours.patches(IMAGES, size=0), "do not tile"),
        (lambda: neighbours.shrunk(IMAGES, 0), "cannot be averaged"),
        (lambda: calibration.floor(X, pairs=0), "at least one pair"),
        (lambda: vendi.vendi_of_kernel([[1, -3], [-3, 1]]), "negative eigenvalue"),
        (lambda: concentration.concentration([0, 1, 2]), r"\(prompts, images\)"),
        (lambda: sample_size("mean", effect=0.3, delta=0.2, sd=-1), "above zero"),
        (lambda: sample_size("correlation", effect=1.0, delta=0.2), "below one"),
    ],
)
def test_bad_input_is_refused_in_words(measure, words):
    with pytest.raises(EssayError, match=words):
        measure()
