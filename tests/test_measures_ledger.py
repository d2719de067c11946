import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge
from sklearn.neighbors import KNeighborsClassifier

from essaylib.errors import EssayError
from essaylib.measures import ledger as led

VENDORS = ["emojione", "google", "microsoft", "twitter"]


def drawings(subgroups=12, concepts=6):
    rows = [
        (f"c{s}-{c}", vendor, f"s{s}", f"g{s % 2}")
        for s in range(subgroups)
        for c in range(concepts)
        for vendor in VENDORS
    ]
    return pd.DataFrame(rows, columns=["concept", "vendor", "subgroup", "group"])


def planted(table, concept=0.0, vendor=0.0, noise=1.0, d=24, seed=0):
    """Features that are the sum of a concept's vector, a vendor's, and the drawing's own."""
    rng = np.random.default_rng(seed)
    c = pd.factorize(table.concept)[0]
    v = pd.factorize(table.vendor)[0]
    own = rng.normal(size=(len(table), d))
    return (
        concept * rng.normal(size=(c.max() + 1, d))[c]
        + vendor * rng.normal(size=(4, d))[v]
        + noise * own
    )


@pytest.fixture(scope="module")
def table():
    return drawings()


@pytest.fixture(scope="module")
def asked(table):
    return led.questions(table, planted(table, 1, 1, seed=9))


def scores(found):
    return {question: found.of(question).mean() for question in led.QUESTIONS}


def test_questions_are_four_way_matched_and_unseen_in_fitting(table, asked):
    kept = table.iloc[asked.rows].reset_index(drop=True)
    for i, choices in enumerate(asked.concept_choices):
        assert kept.concept[choices[0]] == kept.concept[i]
        assert (kept.vendor[choices].nunique(), kept.concept[choices].nunique()) == (1, 4)
        assert kept.vendor[choices[0]] != kept.vendor[i]
    for i, choices in enumerate(asked.source_choices):
        assert choices[0] == i and kept.concept[choices].nunique() == 4
        assert set(kept.vendor[choices]) == {kept.vendor[i]}
    for choices in (asked.concept_choices, asked.source_choices):
        assert all(kept.subgroup[row].nunique() == 1 for row in choices)
        assert (asked.fold[choices] == asked.fold[:, None]).all()
    assert set(asked.fold) == set(range(led.FOLDS))


def test_a_selection_is_whole_subgroups_of_complete_concepts():
    table = drawings().drop(3)  # twitter's c0-0
    table.loc[table.concept == "c1-0", "subgroup"] = "lonely"
    every = table.reset_index(drop=True).iloc[led.selection(table)]
    assert every.concept.nunique() == 71 and "c0-0" not in set(every.concept)
    assert every.vendor.tolist() == VENDORS * 71
    some = table.reset_index(drop=True).iloc[led.selection(table, 20, seed=1)]
    assert 10 <= some.concept.nunique() <= 20 and "c1-0" not in set(some.concept)
    assert (some.groupby("subgroup").concept.nunique() >= 5).all()
    assert len(led.selection(table, 1)) >= 16


def test_only_concepts_that_all_vendors_drew_take_part():
    table = drawings()
    table = table.drop(table.index[3]).reset_index(drop=True)  # twitter's c0-0
    found = led.questions(table, planted(table))
    assert "c0-0" not in found.names and len(found.names) == 71
    assert "c0-0" not in set(table.concept.iloc[found.rows])


def test_small_subgroups_are_joined_within_their_group_or_left_out():
    table = drawings(subgroups=8, concepts=5)
    table.loc[table.concept == "c0-0", "subgroup"] = "lonely"
    assert "c0-0" not in led.questions(table, planted(table)).names
    for i in range(4):
        table.loc[table.concept == f"c{2 * i}-1", "subgroup"] = f"lonely{i}"
    joined = led.questions(table, planted(table))
    assert {"c0-0", "c0-1", "c2-1"} <= set(joined.names)


def test_what_is_planted_is_read_and_what_is_not_is_at_chance(table, asked):
    both = scores(led.ledger(planted(table, 2, 2, 0.3), asked))
    assert both["concept"] > 0.97 and both["vendor"] > 0.93
    concept = scores(led.ledger(planted(table, concept=2, noise=0.3), asked))
    assert concept["concept"] > 0.97 and concept["vendor"] == pytest.approx(0.25, abs=0.09)
    vendor = scores(led.ledger(planted(table, vendor=2, noise=0.3), asked))
    assert vendor["vendor"] > 0.93 and vendor["concept"] == pytest.approx(0.25, abs=0.09)


def test_the_reference_itself_names_its_source(table, asked):
    assert scores(led.ledger(planted(table, 1, 1, seed=9), asked))["source"] == 1.0
    other = scores(led.ledger(planted(table, 0, 0, seed=4), asked))
    assert other["source"] == pytest.approx(0.25, abs=0.09)


@pytest.mark.parametrize("probe", ["linear", "nonlinear", "distance"])
def test_nothing_is_read_from_noise_whatever_the_probe(probe):
    table = drawings(subgroups=40)
    asked = led.questions(table, planted(table, 1, 1, seed=9))
    means = [scores(led.ledger(planted(table, seed=s), asked, probe)) for s in range(4)]
    questions = led.QUESTIONS[: 2 if probe == "distance" else 3]
    for question in questions:
        # 4 x 960 answers: a standard error of 0.007, more for answers that share a drawing.
        assert np.mean([m[question] for m in means]) == pytest.approx(0.25, abs=0.03)


def test_shuffling_removes_everything(table, asked):
    found = scores(led.shuffled(planted(table, 2, 2, 0.3), asked))
    assert all(score == pytest.approx(0.25, abs=0.09) for score in found.values())


def test_what_was_reduced_once_gives_the_same_answers(table, asked):
    rng = np.random.default_rng(0)
    x = planted(table, 2, 2, 0.3) @ rng.normal(size=(24, 300))
    x += rng.normal(size=x.shape)
    once = led.reduced(x, asked)
    assert once.shape == (len(table), led.DIMENSIONS)
    wanted = led.ledger(x, asked).answers
    assert np.abs(led.ledger(once, asked).answers - wanted).mean() < 0.001
    single = led.ledger(x.astype(np.float32), asked).answers
    assert np.abs(single - wanted).mean() < 0.005


def test_features_are_not_written_to(table, asked):
    x = planted(table, 1, 1)
    before = x.copy()
    led.ledger(x, asked)
    led.questions(table, x)
    assert np.array_equal(x, before)


def test_a_constant_is_a_tie(table, asked):
    for probe in ("linear", "nonlinear", "distance"):
        found = scores(led.ledger(np.ones((len(table), 100)), asked, probe))
        assert found["concept"] == found["vendor"] == pytest.approx(0.25)


def test_a_random_projection_keeps_less_than_pca(table, asked):
    rng = np.random.default_rng(0)
    x = planted(table, 2, 2, 0.3) @ rng.normal(size=(24, 400))
    x += 30 * rng.normal(size=(len(table), 400))
    pca = scores(led.ledger(x, asked))
    random = scores(led.ledger(x, asked, projection="random"))
    assert pca["vendor"] > random["vendor"]


def test_the_nonlinear_probe_reads_what_the_linear_cannot():
    table = drawings(subgroups=40)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(len(table), 4))
    # The vendor is where two signs agree: no line parts them.
    v = pd.factorize(table.vendor)[0]
    x[:, 0] = np.abs(x[:, 0]) * np.sign(x[:, 1]) * np.where(v % 2, 1, -1)
    x[:, 2] = np.abs(x[:, 2]) * np.sign(x[:, 3]) * np.where(v // 2, 1, -1)
    asked = led.questions(table, x)
    assert scores(led.ledger(x, asked))["vendor"] < 0.35
    assert scores(led.ledger(x, asked, "nonlinear"))["vendor"] > 0.5


def test_distance_is_the_nearest_neighbour(table, asked):
    x = planted(table, 0.5, 1.0)
    found = led.ledger(x, asked, "distance")
    right = np.empty(len(x))
    for fold in range(led.FOLDS):
        test = asked.fold == fold
        nearest = KNeighborsClassifier(1).fit(x[~test], asked.vendor[~test])
        right[test] = nearest.predict(x[test]) == asked.vendor[test]
    assert found.of("vendor").mean() == pytest.approx(right.mean())


def test_ridge_matches_scikit_learn():
    rng = np.random.default_rng(0)
    x, y, train = rng.normal(size=(50, 6)), rng.normal(size=(50, 3)), np.arange(50) < 40
    a = x[train] - x[train].mean(0)
    strength = led.RIDGE * np.trace(a.T @ a) / 6
    wanted = Ridge(alpha=strength).fit(x[train], y[train]).predict(x)
    assert led._ridge(x, y, train) == pytest.approx(wanted)


def test_whitening_makes_the_differences_within_a_concept_round(table, monkeypatch):
    monkeypatch.setattr(led, "RIDGE", 1e-9)
    x = planted(table, 1, 1) * np.linspace(0.1, 5, 24)
    concept = pd.factorize(table.concept)[0]
    vendor = pd.factorize(table.vendor)[0]
    z = pd.DataFrame(x @ led._within(x, concept, vendor))
    z -= z.groupby(vendor).transform("mean")
    z -= z.groupby(concept).transform("mean")
    assert (z.T @ z / len(z)).to_numpy() == pytest.approx(np.eye(24), abs=1e-6)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000), scale=st.floats(0.01, 100))
def test_scores_ignore_scale_shift_and_rotation(seed, scale):
    table = drawings(subgroups=6)
    x = planted(table, 1, 1, seed=seed)
    asked = led.questions(table, x)
    turn = np.linalg.qr(np.random.default_rng(seed).normal(size=(24, 24)))[0]
    once, again = led.ledger(x, asked), led.ledger(scale * x @ turn + 7, asked)
    assert ((once.answers >= 0) & (once.answers <= 1)).all()
    # A rounding may turn a near tie, no more.
    assert np.abs(once.answers - again.answers).mean() < 0.01


def test_scores_come_with_intervals_over_concepts(table, asked):
    found = led.ledger(planted(table, 1, 1), asked)
    score = found.score("vendor", draws=500)
    assert score.n == 72 and score.low < score.estimate < score.high
    rows = led.table({"pixels": found, "noise": led.shuffled(planted(table), asked)}, draws=200)
    assert rows.shape == (6, 6)
    first = rows.iloc[0]
    assert first.score_low <= first.score <= first.score_high
    floors = {"pixels": led.shuffled(planted(table, 1, 1), asked)}
    beside = led.table({"pixels": found, "noise": found}, floors, draws=200)
    assert beside.score_null[:3].tolist() == list(floors["pixels"].answers.mean(0))
    assert beside.score_null[3:].isna().all()
    with pytest.raises(EssayError, match="Unknown question"):
        found.of("author")


def test_bad_input_is_refused(table, asked):
    x = planted(table)
    with pytest.raises(EssayError, match="must pair"):
        led.questions(table, x[:-1])
    with pytest.raises(EssayError, match="four-way"):
        led.questions(table[table.vendor != "google"], x[table.vendor != "google"])
    lonely = drawings(subgroups=1, concepts=3)
    with pytest.raises(EssayError, match="No four concepts"):
        led.questions(lonely, np.ones((12, 2)))
    x[0, 0] = np.nan
    with pytest.raises(EssayError, match="NaN"):
        led.ledger(x, asked)
    with pytest.raises(EssayError, match="Unknown probe"):
        led.ledger(planted(table), asked, probe="quadratic")
    with pytest.raises(EssayError, match="Unknown projection"):
        led.ledger(planted(table), asked, projection="tsne")
