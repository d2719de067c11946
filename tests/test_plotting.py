import itertools

import numpy as np
import pandas as pd
import pytest
from matplotlib import rcParams
from matplotlib.colors import to_rgb

from essaylib import plotting
from essaylib.errors import EssayError
from essaylib.measures import neighbours

# Machado, Oliveira and Fernandes 2009: complete deuteranopia, protanopia, tritanopia.
COLOUR_BLINDNESS = {
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
    "none": np.eye(3),
}
TO_XYZ = np.array(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)


def linear(colour):
    channels = np.array(to_rgb(colour))
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def lab(rgb):
    xyz = TO_XYZ @ np.clip(rgb, 0, 1) / (0.95047, 1, 1.08883)
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


PAIRS = list(itertools.combinations(plotting.VENDOR_COLOURS.values(), 2))


@pytest.mark.parametrize("kind", COLOUR_BLINDNESS)
def test_vendors_differ_for_every_eye(kind):
    matrix = np.array(COLOUR_BLINDNESS[kind])
    distances = [
        np.linalg.norm(lab(matrix @ linear(one)) - lab(matrix @ linear(other)))
        for one, other in PAIRS
    ]
    assert min(distances) > 25


def test_vendors_differ_in_greyscale_and_stand_out_from_the_paper():
    grey = [abs(lab(linear(one))[0] - lab(linear(other))[0]) for one, other in PAIRS]
    assert min(grey) > 10
    for colour in plotting.VENDOR_COLOURS.values():
        assert plotting.contrast(colour, plotting.PAPER) > 3


@pytest.mark.parametrize("colour", [*plotting.VERDICT_COLOURS.values(), *plotting.SERIES_COLOURS])
def test_text_on_a_colour_can_be_read(colour):
    assert plotting.contrast(plotting.ink_on(colour), colour) >= 4.5


def test_contrast_of_black_on_white_is_twenty_one():
    assert plotting.contrast("black", "white") == pytest.approx(21)


def test_style_leaves_the_readers_settings_alone():
    before = rcParams["axes.facecolor"]
    with plotting.style():
        assert rcParams["axes.facecolor"] == plotting.PAPER
    assert rcParams["axes.facecolor"] == before


def drawn(fig):
    """The figure as pixels, as it would be saved."""
    fig.canvas.draw()
    return np.asarray(fig.canvas.buffer_rgba())[..., :3]


def new_figure():
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    fig = plotting.new_figure()
    FigureCanvasAgg(fig)
    return fig


def test_image_grid_shows_every_pixel_unchanged():
    images = np.random.default_rng(0).integers(0, 256, (6, 20, 30, 3), dtype=np.uint8)
    with plotting.style():
        fig = new_figure()
        plotting.image_grid(
            fig, images, columns=3, row_labels=["one", "two"], column_labels=list("abc"), scale=2
        )
        page = drawn(fig)
    expected = images.repeat(2, 1).repeat(2, 2)
    for image in expected:
        starts = np.argwhere((page[:-39, :-59] == image[0, 0]).all(-1))
        assert any(np.array_equal(page[y : y + 40, x : x + 60], image) for y, x in starts), (
            "an image was resampled"
        )


def test_image_grid_fills_the_column_in_whole_pixels():
    images = np.zeros((4, 128, 128, 3), np.uint8)
    with plotting.style():
        fig = new_figure()
        axes = plotting.image_grid(fig, images, labels=["grinning face with big eyes"] * 4)
    width, height = fig.get_size_inches() * plotting.DPI
    assert width == pytest.approx(round(width)) and width <= plotting.WIDTH * plotting.DPI
    box = axes[0].get_position()
    assert (box.width * width, box.height * height) == (pytest.approx(256), pytest.approx(256))


def test_row_labels_of_an_image_grid_are_not_cut_off():
    images = np.zeros((2, 16, 16, 3), np.uint8)
    with plotting.style():
        fig = new_figure()
        labels = ["thermometer\nmmmmmmmm", "i"]
        axes = plotting.image_grid(fig, images, columns=1, row_labels=labels, points=13)
        fig.canvas.draw()
    (text,) = axes[0].texts
    box = text.get_window_extent()
    assert text.get_fontsize() == 13 and box.x0 >= 0 and box.width > 50


def test_rows_of_an_image_grid_are_as_tall_as_their_own_words():
    images = np.zeros((4, 32, 32, 3), np.uint8)
    with plotting.style():
        axes = plotting.image_grid(new_figure(), images, 2, labels=["a", "b", "one two six", ""])
        height = axes[0].figure.get_size_inches()[1] * plotting.DPI
    tops = [round(height * (1 - ax.get_position().y1)) for ax in axes]
    bottom = round(height * (1 - axes[2].get_position().y0))
    one, more = tops[2] - tops[0], height - bottom
    assert tops[0] == tops[1] and tops[2] == tops[3]
    tall = axes[0].get_position().height * height
    assert one - tall < more


def test_image_grid_takes_rows_of_different_length_and_empty_places():
    image = np.zeros((8, 8, 3), np.uint8)
    with plotting.style():
        fig = new_figure()
        axes = plotting.image_grid(fig, [[image, None, image], [image]])
    assert [bool(ax.images) for ax in axes] == [True, False, True, True, False, False]


@pytest.mark.parametrize(
    ("images", "settings", "cure"),
    [
        ([], {}, "at least one image"),
        ([None], {}, "no image"),
        ([np.zeros((8, 8, 3), np.uint8), np.zeros((9, 8, 3), np.uint8)], {}, "one size"),
        ([np.zeros((8, 8, 3), np.uint8)], {"labels": ["a", "b"]}, "labels has 2 entries for 1"),
        ([np.zeros((8, 8, 2), np.uint8)], {}, "Not an image"),
    ],
)
def test_image_grid_refuses_what_it_cannot_show(images, settings, cure):
    with plotting.style(), pytest.raises(EssayError, match=cure):
        plotting.image_grid(plotting.new_figure(), images, **settings)


def test_row_labels_are_not_cut_off():
    with plotting.style():
        fig = plotting.new_figure()
        axes = plotting.image_grid(
            fig, np.zeros((2, 64, 64, 3), np.uint8), 1, row_labels=["WWWWWWWW", "illicit\nfill"]
        )
        fig.draw_without_rendering()
        for ax in axes:
            assert ax.texts[0].get_window_extent().x0 >= 0


def test_transparency_is_set_on_white_and_floats_are_scaled():
    rgba = np.zeros((1, 2, 4), np.uint8)
    rgba[0, 1] = (10, 20, 30, 255)
    assert plotting.to_uint8(rgba).tolist() == [[[255, 255, 255], [10, 20, 30]]]
    assert plotting.to_uint8(np.full((1, 1), 0.5)).tolist() == [[[128, 128, 128]]]


def test_a_parcel_map_lays_patches_where_they_belong():
    picture = np.full((32, 32, 3), 7, np.uint8)
    pixels = np.stack([np.full((16, 16, 3), grey, np.uint8) for grey in (10, 20, 30)])
    found = neighbours.Pieces(
        place=np.array([0, 1, 3]),
        pixels=pixels,
        source=np.array([1, 0, 0]),
        near=np.array([True, True, False]),
        main=np.array([True, False, False]),
    )
    axes = plotting.parcel_map(
        new_figure(), [picture], [found], ["twitter", "google"], ["a"], [1 / 3], scale=1
    )
    shown = [ax.images[0].get_array() for ax in axes[:3]]
    assert (shown[0] == 7).all()
    corners = [tuple(shown[1][y, x]) for y, x in ((0, 0), (0, 31), (31, 0), (31, 31))]
    assert corners == [(10,) * 3, (20,) * 3, (255,) * 3, (30,) * 3]
    google, twitter = (to_rgb(plotting.VENDOR_COLOURS[name]) for name in ("google", "twitter"))
    assert np.allclose(shown[2][0, 0], 255 * np.array(google), atol=1)
    assert np.allclose(shown[2][0, 31], 255 * np.array(twitter), atol=1)
    assert (shown[2][8, 8] == 255).all()
    words = [text.get_text() for text in axes[3].texts]
    assert {"google 33%", "twitter 33%", "microsoft 0%", "none 33%"} <= set(words)
    under = axes[2].texts[0].get_text()
    assert under.split() == ["borrowed", "33%"]


def test_names_of_points_keep_clear_of_each_other():
    table = pd.DataFrame(
        {"x": [0.30, 0.31, 0.32], "y": [0.50, 0.51, 0.50], "w": ["one", "two", "six"]}
    )
    with plotting.style():
        fig = plotting.new_figure((5, 4))
        ax = plotting.frontier(
            fig, table.assign(kind="ordinary"), "x", "y", label="w", group="kind"
        )
        ax.set(xlim=(0, 1), ylim=(0, 1))
        plotting.null_bar(ax, 0.31, 0.4, 0.5)
        fig.draw_without_rendering()
        boxes = [text.get_window_extent() for text in ax.texts]
    assert len(boxes) == 5
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_a_null_is_named_at_the_side_that_is_asked_for():
    with plotting.style():
        ax = plotting.new_figure().add_subplot()
        plotting.null_band(ax, 0, label="nothing", axis="x", side="left")
        plotting.null_band(ax, 0.01, label="enough", axis="x", side="right")
        ax.figure.draw_without_rendering()
        nothing, enough = (text.get_window_extent() for text in ax.texts)
    assert nothing.x1 < enough.x0


def test_a_ledger_a_row_with_its_makers_and_its_prices():
    grey = np.full((16, 16, 3), 90, np.uint8)
    rows = {"pixels": np.stack([grey] * 3), "clip": np.stack([grey + 50] * 3)}
    makers = {"pixels": ["google", "twitter", "google"], "clip": ["emojione"] * 3}
    shares = dict.fromkeys(plotting.VENDOR_COLOURS, 0.25)
    paid = {"pixels": shares | {"google": 0.75}, "clip": shares}
    axes = plotting.ledger_rows(new_figure(), {"output": grey}, rows, makers, paid)
    assert len(axes) == 3 * 5
    assert [len(ax.images) for ax in axes] == [1, 0, 0, 0, 0] + 2 * [1, 1, 1, 0, 0]
    edges = [ax.patches[0].get_edgecolor() for ax in axes[5:8]]
    assert [edge[:3] for edge in edges] == [
        to_rgb(plotting.VENDOR_COLOURS[maker]) for maker in makers["pixels"]
    ]
    assert "75% google" in [text.get_text() for text in axes[8].texts]
    assert (axes[10].images[0].get_array() == 140).all()


def test_heat_keeps_the_resolution_of_the_map_visible():
    maps = np.array([[[0.0, 1.0], [2.0, 4.0]]])
    found = plotting.heat(maps, 8)
    assert found.shape == (1, 8, 8, 3)
    assert len(np.unique(found[0].reshape(-1, 3), axis=0)) == 4
    with pytest.raises(EssayError, match="ask more"):
        plotting.heat(np.zeros((1, 16, 16)), 8)


SWEEP = pd.DataFrame(
    {
        "w": [1.0, 4.0, 8.0] * 2,
        "x": [0.2, 0.5, 0.7, 0.1, 0.4, 0.6],
        "y": [0.3, 0.4, 0.6, 0.3, 0.3, 0.4],
        "vendor": ["google"] * 3 + ["twitter"] * 3,
    }
)
SWEEP = SWEEP.assign(y_low=SWEEP.y - 0.05, y_high=SWEEP.y + 0.05)


def words(ax):
    return {text.get_text() for text in ax.texts}


def colours(ax):
    return {line.get_color() for line in ax.lines}


def test_curves_are_named_where_they_end_and_keep_the_vendors_colours():
    with plotting.style():
        ax = plotting.curves_with_bands(new_figure(), SWEEP, "w", "y", group="vendor")
        plotting.null_band(ax, 0.25, label="chance")
    assert {"google", "twitter", "chance"} <= words(ax)
    assert {plotting.VENDOR_COLOURS["google"], plotting.NULL} <= colours(ax)
    assert len(ax.collections) == 2, "a band for each curve"
    assert ax.get_title() == ""


def test_names_of_curves_that_end_together_are_moved_apart():
    close = SWEEP.assign(y=0.3, y_low=0.2, y_high=0.4)
    with plotting.style():
        ax = plotting.curves_with_bands(new_figure(), close, "w", "y", group="vendor")
    heights = [text.xy[1] for text in ax.texts]
    assert abs(heights[0] - heights[1]) > 0.01


def test_frontier_writes_the_setting_at_each_point():
    with plotting.style():
        ax = plotting.frontier(new_figure(), SWEEP[:3], "x", "y", label="w", xlabel="adherence")
    assert {"1", "4", "8"} <= words(ax)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("adherence", "y")


def test_intervals_read_from_top_to_bottom():
    table = pd.DataFrame({"language": ["English", "Hindi"], "premium": [1.0, 2.4]})
    table = table.assign(premium_low=[0.9, 2.0], premium_high=[1.1, 3.0])
    with plotting.style():
        ax = plotting.intervals(new_figure(), table, "premium", "language")
        plotting.null_band(ax, 1, axis="x", label="as English")
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["English", "Hindi"]
    assert ax.yaxis_inverted()
    bars = ax.containers[0].lines[2][0].get_segments()
    assert bars[1][:, 0].tolist() == pytest.approx([2.0, 3.0])


def test_shares_fill_the_bar():
    table = pd.DataFrame({"w": ["1", "8"], "prompt": [0.3, 0.7], "seed": [0.7, 0.3]})
    with plotting.style():
        ax = plotting.shares(new_figure(), table, "w", ["prompt", "seed"])
    ends = [bar.get_x() + bar.get_width() for bar in ax.patches]
    assert max(ends) == pytest.approx(1)
    assert "prompt\n30%" in words(ax)


def test_crossed_shares_grow_from_both_ends():
    table = pd.DataFrame(
        {
            "what": ["w", "null"],
            "prompt": [0.5, -0.01],
            "seed": [0.2, 0.01],
            "interaction": [0.3, 1],
        }
        | {"prompt_low": [0.4, -0.1], "prompt_high": [0.6, 0.1]}
        | {"seed_low": [0.1, -0.1], "seed_high": [0.25, 0.1]}
    )
    with plotting.style():
        ax = plotting.crossed_shares(
            plotting.new_figure(), table, "what", "prompt", "seed", after=1
        )
    starts = [round(bar.get_x(), 6) for bar in ax.patches]
    assert starts == [0, 0, 0.5, 0, 0.8, 1]  # the prompt, the rest, the seed, bar by bar
    near, far = (lines.get_segments()[0][:, 0] for lines in ax.collections)
    assert near.tolist() == pytest.approx([0.4, 0.6])
    assert far.tolist() == pytest.approx([0.75, 0.9])
    assert ax.get_xlim() == (0, 1)


def test_histograms_share_bins_and_sum_to_one():
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"d": rng.normal(size=300), "kind": ["a"] * 100 + ["b"] * 200})
    with plotting.style():
        ax = plotting.histograms(new_figure(), table, "d", "kind", bins=12)
    outlines = [patch.get_data() for patch in ax.patches]
    assert np.array_equal(outlines[0].edges, outlines[-1].edges)
    assert outlines[0].values.sum() == pytest.approx(1)
    assert {"a", "b"} <= words(ax)


def test_matrix_writes_numbers_words_and_gaps():
    numbers = pd.DataFrame([[0.25, np.nan]], index=["concept"], columns=["pixel", "latent"])
    verdicts = pd.DataFrame([["supported", "mixed"]], index=["claim"], columns=["a", "b"])
    with plotting.style():
        assert words(plotting.matrix(new_figure(), numbers)) == {"0.25", "–"}
        ax = plotting.matrix(new_figure(), verdicts)
    assert words(ax) == {"supported", "mixed"}
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["a", "b"]


def test_scatter_shows_the_images_of_its_ends():
    images = np.arange(10, dtype=np.uint8)[:, None, None, None] * np.ones((1, 8, 8, 3), np.uint8)
    table = pd.DataFrame({"x": np.linspace(1, 0, 10), "y": range(10), "name": list("abcdefghij")})
    with plotting.style():
        fig = new_figure()
        plotting.scatter_with_extremes(fig, table, "x", "y", images, label="name", count=2)
    shown = [int(ax.images[0].get_array()[0, 0, 0]) for ax in fig.axes if ax.images]
    assert shown == [9, 8, 1, 0]
    with plotting.style(), pytest.raises(EssayError, match="one image a row"):
        plotting.scatter_with_extremes(new_figure(), table, "x", "y", images[:3])


def test_words_along_the_axis_keep_their_order_and_nulls_are_drawn():
    table = pd.DataFrame({"stage": ["pixel", "latent", "clip"], "score": [0.9, 0.5, 0.4]})
    table = table.assign(score_null=0.25)
    with plotting.style():
        ax = plotting.curves_with_bands(new_figure(), table, "stage", "score")
        rows = plotting.intervals(new_figure(), table, "score", "stage")
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["pixel", "latent", "clip"]
    assert ax.lines[1].get_ydata().tolist() == [0.25] * 3
    assert rows.lines[-1].get_marker() == "|"


def test_arrows_lead_from_before_to_after():
    table = pd.DataFrame(
        {
            "way": ["one", "two"],
            "x": [1.0, 2.0],
            "y": [3.0, 4.0],
            "y_low": [2.0, 3.0],
            "y_high": [4.0, 5.0],
            "x_before": [0.0, 0.0],
            "y_before": [1.0, 1.0],
        }
    )
    with plotting.style():
        ax = plotting.before_after(new_figure(), table, "x", "y", "way")
    arrows = [text for text in ax.texts if text.arrow_patch]
    assert [arrow.xy for arrow in arrows] == [(1, 3), (2, 4)]
    assert {arrow.xyann for arrow in arrows} == {(0, 1)}
    assert [text.get_text() for text in ax.texts if text.get_text()] == ["one", "two"]


def test_a_null_that_spreads_is_a_bar_behind_its_row():
    table = pd.DataFrame(
        {"way": ["one", "two"], "v": [1.2, 0.9], "v_null_low": [0.8] * 2, "v_null_high": [1.1] * 2}
    )
    with plotting.style():
        ax = plotting.intervals(new_figure(), table, "v", "way")
    bars = [c for c in ax.collections if len(c.get_segments()) == 2]
    assert [s.tolist() for s in bars[0].get_segments()] == [
        [[0.8, 0], [1.1, 0]],
        [[0.8, 1], [1.1, 1]],
    ]


def test_a_null_at_one_place_is_an_upright_bar():
    with plotting.style():
        ax = plotting.new_figure().add_subplot()
        plotting.null_bar(ax, 0.4, 2.0, 3.0)
    (bar,) = ax.collections
    assert bar.get_segments()[0].tolist() == [[0.4, 2.0], [0.4, 3.0]]
    assert [text.get_text() for text in ax.texts] == ["chance"]


def test_a_power_law_is_fitted_through_the_middle():
    x = np.array([0.25, 0.5, 1.0, 2.0, 4.0])
    table = pd.DataFrame({"x": x, "y": x**1.5, "name": list("abcde")})
    with plotting.style():
        figure = plotting.new_figure()
        ax = plotting.power_law(figure, table, "x", "y", (-0.2, 0.2), label="name", count=1)
    fit = ax.lines[0].get_xydata()
    assert fit[:, 1] == pytest.approx(fit[:, 0] ** 1.5)
    band = ax.collections[1].get_paths()[0].vertices
    assert band[:, 1].max() == pytest.approx(4**0.3)  # 0.2 of the line, where all dots lie on it
    assert {text.get_text() for text in ax.texts} == {"by chance", "fit", "a", "e"}
    assert ax.xaxis.get_major_formatter()(0.25, None) == "1/4"


def survivors():
    """Two models measured, one of them without a control passed, and one that nobody ran."""
    cells = [
        ("one", "final", "measured", True, 2.0, 1.5, 2.5),
        ("two", "final", "measured", True, -40.0, -50.0, -30.0),
        ("one", "early", "same", True, 2.0, 1.5, 2.5),
        ("two", "early", "measured", False, 0.1, -3.0, 0.5),
        ("one", "away", "elsewhere", False, np.nan, np.nan, np.nan),
        ("two", "away", "elsewhere", False, np.nan, np.nan, np.nan),
    ]
    names = ["row", "title", "state", "control", "effect", "effect_low", "effect_high"]
    return pd.DataFrame(cells, columns=names)


STATES = {"same": ("o", "the same parts"), "elsewhere": ("_", "not run"), "x": ("x", "unused")}


def test_every_cell_of_a_survival_matrix_has_a_mark():
    ax = plotting.survival(plotting.new_figure(), survivors(), STATES)
    marks = [line for line in ax.lines if line.get_marker() not in ("None", None, "")]
    assert len(marks) == 6
    assert [label.get_text() for label in ax.get_xticklabels()] == ["final", "early", "away"]
    one, two = ((line.get_xdata()[0], line.get_ydata()[0]) for line in marks[:2])
    assert (one[1], two[1]) == (0, 1) and two[0] < one[0]


def test_a_survival_matrix_shows_failed_controls_extremes_and_shared_parts():
    ax = plotting.survival(plotting.new_figure(), survivors(), STATES)
    marks = [line for line in ax.lines if line.get_marker() not in ("None", None, "")]
    final, extreme, same, failed = marks[:4]
    assert extreme.get_marker() == "<" and final.get_marker() == "o"
    assert failed.get_markerfacecolor() == plotting.PAPER != final.get_markerfacecolor()
    assert final.get_color() == plotting.ACCENT and same.get_color() == plotting.NULL
    words = [text.get_text() for text in ax.get_legend().get_texts()]
    assert "not run" in words and "unused" not in words


def test_models_without_numbers_take_less_room():
    ax = plotting.survival(plotting.new_figure(), survivors(), STATES)
    final, early, away = ax.get_xticks()
    assert away - early < early - final
