"""Whose mean: estimates that are mixtures made by hand, and the path on a tiny network."""

import numpy as np
import pytest

from essaylib import corpus
from essaylib.errors import EssayError
from essaylib.measures import mixture
from essaylib.statistics import loss

QUARTERS = np.full((80, 4), 0.25)


@pytest.fixture(scope="module")
def latents():
    return np.random.default_rng(0).normal(size=(80, 4, 4, 6, 6))


def mixtures(latents, alpha, timesteps=2, seed=0):
    """Estimates (n, timesteps, 4, ...) whose weights are drawn from a Dirichlet distribution."""
    weights = np.random.default_rng(seed).dirichlet(alpha, (len(latents), timesteps, 4))
    return np.einsum("ntjk,nk...->ntj...", weights, latents), weights.mean(2)


def test_weights_are_read_off_estimates_by_timestep(latents):
    believed, wanted = mixtures(latents, np.ones(4))
    found, distances = loss.weights(believed, latents)
    assert found == pytest.approx(wanted, abs=1e-6)
    assert distances == pytest.approx(np.zeros((80, 2)), abs=1e-5)


def test_a_mean_that_leans_supports_the_claim(latents):
    believed, _ = mixtures(latents, [6, 1, 1, 1])
    found, _ = loss.weights(believed, latents)
    test = loss.lean(found.mean(1), QUARTERS, draws=2000, resamples=500)
    assert test.estimate == pytest.approx(6 / 9 - 1 / 4, abs=0.05)
    assert test.low > 0.10 and test.p < 0.001 and test.n == 80


def test_a_mean_with_equal_weights_contradicts_it(latents):
    believed, _ = mixtures(latents, np.ones(4))
    found, _ = loss.weights(believed, latents)
    test = loss.lean(found.mean(1), QUARTERS, draws=2000, resamples=500)
    assert test.high < 0.10 and test.p > 0.01 and abs(test.estimate) < 0.05


def test_the_estimate_is_the_excess_over_chance():
    weights = np.random.default_rng(1).dirichlet([3, 1, 1, 1], 80)
    null = mixture.lean(weights, QUARTERS, draws=2000)
    test = loss.lean(weights, QUARTERS, draws=2000, resamples=100)
    assert test.estimate == pytest.approx(null.observed - null.mean)
    assert test.p == null.p


def test_dealing_gives_every_vendor_a_quarter():
    weights = np.random.default_rng(1).dirichlet([9, 1, 1, 1], 80)
    low, high = loss.dealt(weights, draws=300)
    assert low < 0.25 < high < weights[:, 0].mean() and high - low < 0.2


def test_weights_are_tabled_by_vendor():
    weights = np.random.default_rng(1).dirichlet([9, 1, 1, 1], 80)
    table = loss.by_vendor({"a": weights, "b": weights[::-1]})
    assert (
        list(table.vendor) == 2 * list(corpus.VENDORS) and list(table.of) == ["a"] * 4 + ["b"] * 4
    )
    assert table.weight[:4].to_numpy() == pytest.approx(weights.mean(0))
    assert (table.weight_low < table.weight).all() and (table.weight < table.weight_high).all()


def test_the_mean_of_everything_leans_to_the_most_ordinary(latents):
    unequal = latents * np.array([0.2, 1, 1, 1]).reshape(4, 1, 1, 1)
    found = loss.of_everything(unequal)
    assert found.shape == (80, 4) and found.mean(0).argmax() == 0
    assert found.sum(1) == pytest.approx(np.ones(80))


def test_planted_weights_are_found_again_unless_noise_drowns_them(latents):
    assert loss.planted(latents, np.zeros(80)) == pytest.approx(np.zeros(4), abs=1e-5)
    assert loss.planted(latents, np.full(80, 0.1)).max() < 0.05
    assert loss.planted(latents, np.full(80, 30.0)).min() > 0.1


def test_estimates_are_at_home_with_their_own_drawings(latents):
    subgroup = np.repeat(np.arange(20), 4)
    believed, _ = mixtures(latents, np.ones(4))
    _, distances = loss.weights(believed, latents)
    assert loss.at_home(believed, latents, distances, subgroup).all()
    strange = believed[::-1]
    _, distances = loss.weights(strange, latents)
    assert loss.at_home(strange, latents, distances, subgroup).mean() < 0.75
    alone = np.arange(80)
    with pytest.raises(EssayError, match="share a subgroup"):
        loss.at_home(believed, latents, distances, alone)


def test_the_other_is_a_peer_and_who_has_none_is_left_out():
    subgroup = np.array(["a", "b", "a", "a", "c"])
    other = loss.others(subgroup, seed=1)
    assert (subgroup[other] == subgroup).all()
    assert [i for i in range(5) if other[i] == i] == [1, 4]
    assert np.array_equal(loss.others(subgroup, seed=1), other)
    own, foreign = np.zeros((5, 2)), np.array([[1, 1], [9, 9], [-1, -1], [1, 0], [9, 9]])
    assert loss.nearer(own, foreign, other).tolist() == [True, False, True]


def test_concepts_are_those_that_all_four_drew():
    found = loss.complete(corpus.load(), 5, seed=2)
    assert len(found) == 20 and set(found.table.split) == {"train"}
    assert list(found.table.vendor[:4]) == list(corpus.VENDORS)
    assert found.table.groupby("concept", sort=False).size().tolist() == [4] * 5
    with pytest.raises(EssayError, match="asked for"):
        loss.complete(corpus.load(), 5000)


def test_the_whole_path_on_a_tiny_network(tiny):
    latents = np.random.default_rng(0).normal(size=(2, 4, 4, 16, 16)).astype(np.float32)
    pipe = tiny("embedded")
    believed = loss.believed(pipe, latents, ["dog", "a cat"], seed=3, timesteps=(999, 800))
    assert believed.shape == (2, 2, 4, 4, 16, 16)
    second = loss.believed(pipe, latents[1:], ["a cat"], 3, timesteps=(999, 800), places=[1])
    assert second == pytest.approx(believed[1:], abs=1e-4)
    pure = loss.believed(pipe, latents, ["dog", "a cat"], timesteps=(999,), beneath=False)
    again = loss.believed(pipe, 5 * latents, ["dog", "a cat"], timesteps=(999,), beneath=False)
    assert np.array_equal(pure, again)  # whatever the drawings are
    weights, _ = loss.weights(believed, latents)
    assert weights.sum(-1) == pytest.approx(np.ones((2, 2)))


def test_a_perfect_network_does_not_lean_where_drawings_lie_under_the_noise():
    """Bayes' own estimate, at a signal as low as at timestep 800, on drawings of unequal size."""
    rng = np.random.default_rng(0)
    n, k, d, share = 300, 4, 200, 0.037
    drawings = rng.normal(size=(n, k, d)) * np.array([0.3, 0.6, 1.0, 1.4])[:, None]

    def posterior(noisy):
        square = ((noisy[:, None] - share**0.5 * drawings) ** 2).sum(-1) / (1 - share)
        weights = np.exp(-0.5 * (square - square.min(1, keepdims=True)))
        return weights / weights.sum(1, keepdims=True)

    noise = (1 - share) ** 0.5 * rng.normal(size=(k, n, d))
    under = np.mean([posterior(share**0.5 * drawings[:, j] + noise[j]) for j in range(k)], axis=0)
    pure = np.mean([posterior(noise[j] / (1 - share) ** 0.5) for j in range(k)], axis=0)
    quarters = np.full((n, k), 0.25)
    assert loss.lean(under, quarters, draws=2000, resamples=200).high < 0.05
    assert loss.lean(pure, quarters, draws=2000, resamples=200).low > 0.10
