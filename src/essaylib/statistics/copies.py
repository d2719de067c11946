"""The statistics of the claim `copies`, and the thresholds on which both rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from essaylib import claims, interventions
from essaylib.errors import EssayError
from essaylib.measures import bootstrap, neighbours, permutation, variance
from essaylib.rechecked import ALL, Rows

SIDE = 32
"""Side of the pictures, in pixels, between which a near-copy is sought."""
PATCH = 16
SHIFT = 2


@dataclass(frozen=True)
class Limits:
    """Distances (grey levels, root mean square) below which something counts as a near-copy.

    `image` is for whole pictures of SIDE x SIDE, `patch` for patches. `recognised` is the share of
    near-duplicates, other than those that set the limits, that count as copies. `duplicates` holds
    the distances of all of them (n,).
    """

    image: float
    patch: float
    recognised: float
    duplicates: np.ndarray


def near_duplicates(pipe: Any, drawings: np.ndarray, seed: int = 0, rows: Rows = ALL) -> np.ndarray:
    """Each drawing (n, H, W, 3), uint8, through the autoencoder, then shifted by up to two pixels.

    To either side and up or down, evenly drawn (as `variance.misregistered` does). Floats.
    rows: the drawings that are asked for, each shifted as among all.
    """
    blurred = drawings.copy()
    blurred[rows] = printed(pipe, drawings[rows])
    return variance.misregistered(blurred, copies=1, shift=SHIFT, zoom=0, seed=seed)[rows, 0]


def printed(pipe: Any, drawings: np.ndarray) -> np.ndarray:
    """Each drawing (n, H, W, 3), uint8, once through the autoencoder."""
    return interventions.autoencoder_rounds(pipe, drawings, 1, batch_size=4)[1]


def limits(drawings: np.ndarray, duplicates: np.ndarray) -> Limits:
    """Fix both thresholds on every second drawing and its near-duplicate; try them on the others.

    Both arrays (n, H, W, 3); see `limits_of`.
    """
    if len(drawings) < 4 or drawings.shape != duplicates.shape:
        raise EssayError("Thresholds need four drawings or more, each with its near-duplicate.")
    return limits_of(*apart(drawings, duplicates))


def apart(drawings: np.ndarray, duplicates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distances of drawings (n, H, W, 3) from their near-duplicates: whole (n,), and by patch.

    The second (n, cells) is of each of the drawing's patches from the same place of its
    near-duplicate; -1 where the drawing's is flat.
    """
    whole = neighbours.distance(
        neighbours.shrunk(drawings, SIDE), neighbours.shrunk(duplicates, SIDE)
    )
    cut = neighbours.patches(drawings, PATCH)
    other = neighbours.patches(duplicates, PATCH, flat=0)
    pieces = np.full((len(drawings), len(other.pixels) // len(drawings)), -1.0)
    places = cut.owner * pieces.shape[1] + cut.place
    pieces[cut.owner, cut.place] = neighbours.distance(cut.pixels, other.pixels[places])
    return whole, pieces


def limits_of(whole: np.ndarray, pieces: np.ndarray) -> Limits:
    """Fix both thresholds on every second drawing's distances (`apart`); try them on the others.

    A threshold is the 95th percentile of the distances; flat patches are left out.
    """
    limit, uneven = neighbours.threshold(whole[::2]), pieces[::2][pieces[::2] >= 0]
    recognised = float((whole[1::2] < limit).mean())
    return Limits(limit, neighbours.threshold(uneven), recognised, whole)


def minority(
    distances: np.ndarray, limit: float, draws: int = 10_000, seed: int = 0
) -> claims.Test:
    """Return the share of outputs that are no near-copies, less one half.

    distances: (n,) from each output to its nearest training drawing; one output a concept.
    """
    own = np.where(np.asarray(distances) < limit, -0.5, 0.5)
    null = permutation.sign_flip(own, draws=draws, seed=seed)
    return claims.Test.of(bootstrap.mean(own, seed=seed), null.p)


def parcels(
    outputs: pd.DataFrame, held_out: pd.DataFrame, draws: int = 10_000, seed: int = 0
) -> claims.Test:
    """Return the mean borrowed share of outputs less that of held-out drawings.

    Both tables: concept, group, borrowed (`neighbours.borrowed`); pictures whose patches are all
    flat have none and are left out. "Output" and "held out" are permuted within emoji groups, the
    interval resamples concepts. `n` counts the smaller of the two samples.
    """
    drawn = min(len(outputs), len(held_out))
    both = pd.concat({True: outputs, False: held_out}, names=["output"]).reset_index("output")
    both = both.dropna(subset="borrowed")
    made, share = both.output.to_numpy(bool), both.borrowed.to_numpy(float)
    if not 0 < made.sum() < len(made):
        raise EssayError("Both samples need a picture with patches that are not flat.")

    def difference(made: np.ndarray, share: np.ndarray = share) -> float:
        return share[made].mean() - share[~made].mean()

    null = permutation.permute(difference, made, both.group.to_numpy(), draws, seed)
    found = bootstrap.bootstrap(
        lambda rows: difference(made[rows], share[rows]), both.concept.to_numpy(), seed=seed
    )
    n = int(min(made.sum(), (~made).sum()))
    return claims.Test(found.estimate, found.low, found.high, null.p, n, drawn)
