import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import jaccard_score

from essaylib.errors import EssayError
from essaylib.measures import overlap


@given(arrays(bool, (3, 4, 5)), arrays(bool, (3, 4, 5)))
def test_it_matches_scikit_learn(a, b):
    a[:, 0, 0] = True
    wanted = [jaccard_score(x.ravel(), y.ravel()) for x, y in zip(a, b, strict=True)]
    assert overlap.intersection_over_union(a, b) == pytest.approx(wanted)


def test_by_hand():
    """Masks of six and four pixels that share two: two of eight."""
    a, b = np.zeros((2, 1, 4, 4), bool)
    a[0, :2, :3] = True
    b[0, 1:3, 1:3] = True
    assert overlap.intersection_over_union(a, b) == pytest.approx([2 / 8])
    assert overlap.covering(a) == pytest.approx([6 / 16])


@given(arrays(bool, (2, 5, 5)), st.booleans())
def test_the_better_labelling_does_not_depend_on_names(parts, turn):
    masks = np.zeros((2, 5, 5), bool)
    masks[:, 1:4, 1:4] = True
    best, labelled = overlap.best_labelling(parts, masks)
    again, _ = overlap.best_labelling(~parts if turn else parts, masks)
    assert best == pytest.approx(again)
    assert best == pytest.approx(overlap.intersection_over_union(labelled, masks))


def test_two_means_parts_two_clouds():
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.normal(size=(40, 5)), rng.normal(size=(60, 5)) + 6])
    line, offset = overlap.two_means(points)
    second = points @ line > offset
    assert len(set(second[:40])) == len(set(second[40:])) == 1 and second[0] != second[-1]


def test_the_line_is_that_of_the_nearer_centre():
    from sklearn.cluster import KMeans

    points = np.random.default_rng(1).normal(size=(200, 3)).astype(np.float32)
    line, offset = overlap.two_means(points, seed=5)
    wanted = KMeans(2, n_init=4, random_state=5).fit(points).labels_
    assert np.array_equal(points @ line > offset, wanted == 1)


def test_what_has_no_figure_is_refused():
    empty = np.zeros((1, 3, 3), bool)
    with pytest.raises(EssayError, match="empty masks"):
        overlap.intersection_over_union(empty, empty)
    with pytest.raises(EssayError, match="bool masks"):
        overlap.covering(np.zeros((1, 3, 3)))
    with pytest.raises(EssayError, match="do not lie"):
        overlap.intersection_over_union(~empty, np.ones((1, 4, 4), bool))
    with pytest.raises(EssayError, match="no two clusters"):
        overlap.two_means(np.ones((9, 2)))
    with pytest.raises(EssayError, match="NaN"):
        overlap.two_means(np.full((9, 2), np.nan))
