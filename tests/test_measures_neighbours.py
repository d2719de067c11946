import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors

from essaylib.errors import EssayError
from essaylib.measures import neighbours


@settings(max_examples=20, deadline=None)
@given(st.integers(5, 300), st.integers(1, 5), st.integers(0, 99))
def test_the_search_matches_scikit_learn(n, k, seed):
    rng = np.random.default_rng(seed)
    among, queries = rng.normal(size=(n, 12)), rng.normal(size=(7, 12))
    distances, rows = neighbours.nearest(queries, among, k)
    wanted, wanted_rows = (
        NearestNeighbors(n_neighbors=k, algorithm="brute").fit(among).kneighbors(queries)
    )
    assert distances == pytest.approx(wanted / np.sqrt(12), rel=1e-4)
    assert (rows == wanted_rows).all()


def test_a_copy_is_at_distance_zero_and_can_leave_itself_out():
    x = np.random.default_rng(0).integers(0, 255, size=(600, 4, 4, 3))
    distances, rows = neighbours.nearest(x, x)
    assert (rows[:, 0] == np.arange(600)).all() and distances.max() < 1e-3
    distances, rows = neighbours.nearest(x, x, own=np.arange(600))
    assert (rows[:, 0] != np.arange(600)).all() and distances.min() > 1
    _, mixed = neighbours.nearest(x[:2], x, own=np.array([0, -1]))
    assert mixed[0, 0] != 0 and mixed[1, 0] == 1


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 300), st.integers(1, 30), st.sampled_from([np.uint8, float]), st.integers(0))
def test_the_pruned_search_finds_what_the_plain_one_does(n, directions, kind, seed):
    rng = np.random.default_rng(seed)
    among = rng.integers(0, 255, (n, 5, 5, 3)).astype(kind)
    near = among[rng.integers(n, size=20)] + rng.integers(-3, 3, (20, 5, 5, 3))
    far = rng.integers(0, 255, (20, 5, 5, 3))
    queries = np.concatenate([near, far]).clip(0, 255).astype(kind)
    field = neighbours.Field.of(among, directions)
    distances, rows = neighbours.closest(queries, field)
    apart = ((queries[:, None].astype(float) - among[None].astype(float)) ** 2).mean((2, 3, 4))
    assert distances == pytest.approx(np.sqrt(apart.min(1)), abs=1e-4)
    assert (rows == apart.argmin(1)).all()


def test_patches_are_made_ready_to_be_searched_once():
    images = np.random.default_rng(0).integers(0, 255, (9, 32, 32, 3)).astype(np.uint8)
    known = neighbours.patches(images)
    assert known.field is known.field and known.field.images.shape == (36, 768)
    found = neighbours.match(images[3:5], known)
    assert found.row.tolist() == list(range(12, 20)) and found.distance.max() == 0


def test_a_search_among_equals_takes_the_first():
    among = np.repeat(np.arange(3, dtype=np.uint8), 4).reshape(12, 1) * np.ones(6, np.uint8)
    distances, rows = neighbours.closest(among, among)
    assert distances.max() == 0 and rows.tolist() == np.repeat([0, 4, 8], 4).tolist()


def test_images_are_averaged_over_blocks():
    images = np.arange(2 * 4 * 4 * 3).reshape(2, 4, 4, 3)
    small = neighbours.shrunk(images, 2)
    assert small[1, 0, 1].tolist() == images[1, :2, 2:].mean((0, 1)).tolist()
    assert small.shape == (2, 2, 2, 3) and small.dtype == np.float32


def test_distances_are_in_grey_levels():
    a, b = np.zeros((1, 8, 8, 3)), np.full((1, 8, 8, 3), 10.0)
    assert neighbours.distance(a, b) == pytest.approx([10])
    assert neighbours.nearest(a, b)[0] == pytest.approx(np.array([[10]]))


def test_the_threshold_takes_in_the_share_of_duplicates():
    assert neighbours.threshold(np.arange(101.0)) == pytest.approx(95)
    assert neighbours.threshold(np.arange(101.0), 0.5) == pytest.approx(50)


def test_patches_know_where_they_were_cut():
    images = np.full((2, 32, 32, 3), 255, np.uint8)
    images[1, 16:, :16] = np.random.default_rng(0).integers(0, 255, (16, 16, 3))
    cut = neighbours.patches(images)
    assert (cut.owner.tolist(), cut.place.tolist()) == ([1], [2])
    assert (cut.pixels[0].reshape(16, 16, 3) == images[1, 16:, :16]).all()
    assert len(neighbours.patches(images, flat=0).pixels) == 8


def striped(seed, n=1):
    return np.random.default_rng(seed).integers(0, 255, (n, 32, 32, 3)).astype(float)


def test_a_copy_borrows_nothing_and_a_collage_does():
    training = striped(0, n=3)
    collage = training[0].copy()
    collage[:16, :16] = training[1][:16, :16]
    collage[16:, 16:] = training[2][:16, 16:]
    own = striped(9)[0]
    outputs = np.stack([training[0], collage, own, np.full((32, 32, 3), 255.0)])
    known = neighbours.patches(training)
    found = neighbours.match(outputs, known)
    share = neighbours.borrowed(found, limit=1)
    assert share[:3].tolist() == [0, 0.5, 0] and np.isnan(share[3])
    mine = found.cut.owner == 1
    assert found.source[mine].tolist() == [1, 0, 0, 2]
    assert known.place[found.row[mine]].tolist() == [0, 1, 2, 1]
    pieces = found.of(1, limit=1)
    assert pieces.near.all() and pieces.main.tolist() == [False, True, True, False]
    assert (pieces.pixels[0] == training[1][:16, :16]).all()
    assert not found.of(2, limit=1).near.any() and not found.of(2, limit=1).main.any()


def test_bad_images_are_refused():
    with pytest.raises(EssayError, match="do not tile"):
        neighbours.patches(np.zeros((1, 30, 32, 3)))
    with pytest.raises(EssayError, match="cannot be averaged"):
        neighbours.shrunk(np.zeros((1, 30, 30, 3)), 16)
    with pytest.raises(EssayError, match="differ in size"):
        neighbours.closest(np.zeros((2, 3)), np.zeros((2, 4)))
    with pytest.raises(EssayError, match="NaN"):
        neighbours.patches(np.full((1, 32, 32, 3), np.nan))
    with pytest.raises(EssayError, match="differ in size"):
        neighbours.nearest(np.zeros((2, 3)), np.zeros((2, 4)))
    with pytest.raises(EssayError, match="between 1 and 2"):
        neighbours.nearest(np.zeros((2, 3)), np.zeros((2, 3)), k=3)
    with pytest.raises(EssayError, match="between 1 and 1"):
        neighbours.nearest(np.zeros((2, 3)), np.zeros((2, 3)), k=2, own=np.arange(2))
    with pytest.raises(EssayError, match="NaN"):
        neighbours.nearest(np.full((2, 3), np.nan), np.zeros((2, 3)))
    with pytest.raises(EssayError, match="must pair"):
        neighbours.distance(np.zeros((2, 3)), np.zeros((1, 3)))
