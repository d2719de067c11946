import numpy as np
import pytest
from scipy.ndimage import laplace, sobel

from essaylib.errors import EssayError
from essaylib.measures import sharpness


def grey(values):
    values = np.asarray(values, dtype=np.uint8)
    return np.stack([values] * 3, -1)


@pytest.fixture
def pictures():
    return np.random.default_rng(0).integers(0, 256, (5, 20, 24, 3), dtype=np.uint8)


def test_white_is_one_and_black_none():
    assert sharpness.luminance(grey(np.full((1, 3, 3), 255))) == pytest.approx(np.ones((1, 3, 3)))
    assert sharpness.luminance(grey(np.zeros((1, 3, 3)))).max() == 0


def test_the_energy_matches_scipy(pictures):
    wanted = [(laplace(y)[1:-1, 1:-1] ** 2).mean() for y in sharpness.luminance(pictures)]
    assert sharpness.laplacian_energy(pictures) == pytest.approx(wanted)


def test_one_dot_by_hand():
    """A white pixel on black, 5 x 5: -4 in its place, 1 at its four neighbours, of nine."""
    dot = np.zeros((1, 5, 5))
    dot[0, 2, 2] = 255
    assert sharpness.laplacian_energy(grey(dot)) == pytest.approx([(16 + 4) / 9])


def test_a_blurred_picture_has_less_of_both():
    edge = np.zeros((1, 32, 32))
    edge[:, :, 16:] = 255
    ramp = np.broadcast_to(np.linspace(0, 255, 32), (1, 32, 32))
    for measure in (sharpness.laplacian_energy, sharpness.edge_density):
        assert measure(grey(edge)) > measure(grey(ramp)) >= 0


def test_edges_match_scipy_picture_by_picture(pictures):
    for picture in pictures:
        y = sharpness.luminance(picture[None])[0]
        slope = np.hypot(sobel(y, 0), sobel(y, 1))[1:-1, 1:-1] / 8
        found = sharpness.edge_density(pictures)[[np.array_equal(p, picture) for p in pictures]]
        assert found == pytest.approx([(slope > sharpness.EDGE).mean()])


def test_an_edge_of_two_columns_is_counted():
    """A step has Sobel slopes of a half on the columns at both its sides, and none elsewhere."""
    edge = np.zeros((1, 12, 12))
    edge[:, :, 6:] = 255
    assert sharpness.edge_density(grey(edge)) == pytest.approx([2 / 10])
    assert sharpness.edge_density(grey(edge), slope=0.6) == pytest.approx([0])


def test_other_pictures_are_refused():
    with pytest.raises(EssayError, match="uint8"):
        sharpness.laplacian_energy(np.zeros((1, 8, 8, 3)))
    with pytest.raises(EssayError, match="no inside"):
        sharpness.edge_density(np.zeros((1, 2, 8, 3), np.uint8))
