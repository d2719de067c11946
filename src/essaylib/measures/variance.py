"""Shares of variance in a crossed table with one picture a cell (Searle et al. 1992, chapter 4).

Rows and columns are concepts and vendors, or prompts and seeds. Shares are analysis-of-variance
components: raw sums of squares would give each factor a share of pure noise (a quarter of it to
concepts, with four vendors). With one picture a cell, interaction and chance are one component.
Components are unbiased, so a factor that does nothing may come out slightly negative.
"""

from dataclasses import dataclass

import numpy as np

from essaylib.errors import EssayError
from essaylib.measures import bootstrap
from essaylib.measures.bootstrap import Estimate
from essaylib.measures.checks import finite
from essaylib.measures.permutation import Null, enough


@dataclass(frozen=True)
class Shares:
    """Shares of the total variance; they sum to one."""

    rows: float
    columns: float
    interaction: float


def shares(x: np.ndarray) -> Shares:
    """Return the shares of rows, columns and interaction in x (R, C, ...), summed over the rest.

    Raises `EssayError` for fewer than two rows or columns, and where nothing varies.
    """
    x = _table(x)
    return Shares(*(float(share) for share in _shares(x, np.ones((1, len(x))))[0]))


def over_rows(
    x: np.ndarray, component: str, draws: int = 4000, method: str = "bca", seed: int = 0
) -> Estimate:
    """Return one component's share with its interval over rows (concepts), columns being fixed.

    component: "rows", "columns", "interaction", or "unnamed", which is columns and interaction
        together: all that the row's name does not say.
    """
    x = _table(x)
    pick = _picker(component)
    n = len(x)
    rng = np.random.default_rng(seed)
    found = np.empty(draws)
    for start in range(0, draws, 500):
        picked = rng.integers(n, size=(min(500, draws - start), n))
        weights = np.stack([np.bincount(row, minlength=n) for row in picked])
        found[start : start + len(picked)] = pick(_shares(x, weights))
    left_out = pick(_shares(x, 1.0 - np.eye(n))) if method == "bca" else None
    return bootstrap.interval(float(pick(_shares(x, np.ones((1, n))))[0]), found, n, left_out)


def ratio(x: np.ndarray, draws: int = 1000, seed: int = 0) -> Estimate:
    """Return the columns' share over the rows' (vendor to concept), with its interval over rows.

    About zero where columns are dealt at random. In a resample only pairs of different rows tell
    of columns: a row drawn twice would agree with itself. Raises `EssayError` where rows explain
    nothing.
    """
    x = _table(x)
    n, columns = x.shape[:2]
    same = sum(x[:, c] @ x[:, c].T for c in range(columns)) / columns
    sums = x.sum(1)
    other = (sums @ sums.T - columns * same) / (columns * (columns - 1))
    rng = np.random.default_rng(seed)
    weights = np.ones((draws + 1, n))  # the first is the table as it is
    weights[1:] = rng.multinomial(n, np.full(n, 1 / n), size=draws)
    pairs = n**2 - (weights**2).sum(1)

    def of_two_rows(products: np.ndarray) -> np.ndarray:
        whole = ((weights @ products) * weights).sum(1)
        return (whole - weights**2 @ np.diag(products)) / pairs

    neither = of_two_rows(other)
    row = weights @ np.diag(other) / n - neither
    if (row <= 0).any():
        raise EssayError("The rows explain nothing: a ratio to their share is undefined.")
    observed, *found = (of_two_rows(same) - neither) / row
    return bootstrap.interval(float(observed), np.array(found), n)


@dataclass(frozen=True)
class Crossed:
    """The shares with their intervals, rows and columns both resampled.

    `lead` is the rows' share less the columns'.
    """

    rows: Estimate
    columns: Estimate
    interaction: Estimate
    lead: Estimate

    def as_row(self, rows: str, columns: str) -> dict[str, float]:
        """The three shares and their intervals as a table's row, the factors by these names."""
        parts = {rows: self.rows, columns: self.columns, "interaction": self.interaction}
        return {
            name + suffix: getattr(part, end)
            for name, part in parts.items()
            for suffix, end in (("", "estimate"), ("_low", "low"), ("_high", "high"))
        }


def over_both(x: np.ndarray, draws: int = 4000, seed: int = 0) -> Crossed:
    """Return the shares with percentile intervals over rows and columns (pigeonhole; Owen 2007).

    For prompts x seeds, where neither stands for itself: both margins are drawn with replacement,
    independently, and n counts rows. A row drawn twice agrees with itself; such pairs are left out
    of the components, or every resample would find more to share than the table holds. Resamples
    of a single row or column are drawn again. Needs memory for (R C)^2 numbers.
    """
    x = _table(x)
    rows, columns = x.shape[:2]
    gram = _gram(x)
    rng = np.random.default_rng(seed)
    found = np.empty((draws, 3))
    for start in range(0, draws, 500):
        count = min(500, draws - start)
        drawn = (_multiplicities(rng, count, size) for size in (rows, columns))
        found[start : start + count] = _crossed_shares(gram, *drawn)
    (observed,) = _crossed_shares(gram, np.ones((1, rows)), np.ones((1, columns)))
    observed = [float(share) for share in observed]
    lead = bootstrap.interval(observed[0] - observed[1], found[:, 0] - found[:, 1], rows)
    parts = (bootstrap.interval(o, f, rows) for o, f in zip(observed, found.T, strict=True))
    return Crossed(*parts, lead)


def dealt(x: np.ndarray, draws: int = 10_000, seed: int = 0) -> Null:
    """The rows' lead over the columns when pictures are dealt to rows at random in every column.

    What the columns have in common stays; what the rows had is chance.
    """
    enough(draws)
    x = _table(x)
    rows, columns = x.shape[:2]
    gram = _gram(x)
    rng = np.random.default_rng(seed)
    order = np.broadcast_to(np.arange(rows)[:, None], (rows, columns))
    between_rows = np.empty(draws + 1)
    for i in range(draws + 1):  # the first is the table as it is
        places = order * columns + np.arange(columns)
        between_rows[i] = gram[places[:, :, None], places[:, None, :]].sum() / columns
        order = rng.permuted(order, axis=0)
    table = gram.reshape(rows, columns, rows, columns)
    between_columns = np.einsum("rcsc->", table) / rows  # the grand mean is zero
    parts = _components(between_rows, between_columns, np.trace(gram), rows, columns)
    row, column, residual = parts
    leads = (row - column) / (row + column + residual)
    return Null(float(leads[0]), leads[1:])


def dispersion(x: np.ndarray) -> np.ndarray:
    """Mean squared distance of a row's pictures to their mean, (R,), for x (R, C, ...)."""
    x = finite(x, "x")
    x = x.reshape(*x.shape[:2], -1)
    return ((x - x.mean(1, keepdims=True)) ** 2).sum(-1).mean(1)


def misregistered(
    images: np.ndarray,
    copies: int = 4,
    shift: float = 4,
    zoom: float = 0.05,
    block: int = 1,
    seed: int = 0,
) -> np.ndarray:
    """Return copies (n, copies, H, W, 3) of images (n, H, W, 3), a little off one another.

    Each is shifted by up to `shift` pixels and scaled by up to `zoom`, on white, by linear
    interpolation: what four publishers would show if they all printed one drawing. With `block`,
    which must divide H and W, the copies are then averaged over blocks of that many pixels.
    """
    images = finite(images, "images", dims=4, dtype=np.float32)
    height, width = images.shape[1:3]
    if height % block or width % block:
        raise EssayError(f"block {block} divides neither side of {height} x {width} pixels.")
    rng = np.random.default_rng(seed)
    found = np.empty((len(images), copies, height // block, width // block, images.shape[3]))
    for i, image in enumerate(255 - images.transpose(0, 3, 1, 2)):
        for j in range(copies):
            scale = 1 + rng.uniform(-zoom, zoom)
            down, right = rng.uniform(-shift, shift, 2)
            moved = _resample(height, scale, down, block) @ image
            moved = moved @ _resample(width, scale, right, block).T
            found[i, j] = 255 - moved.transpose(1, 2, 0)
    return found


def _resample(size: int, scale: float, shift: float, block: int) -> np.ndarray:
    """The matrix (size / block, size) that scales a line of pixels about its middle and shifts it.

    What comes from outside the line is zero, that is, paper.
    """
    middle = (size - 1) / 2
    places = scale * (np.arange(size) - middle) + middle + shift
    left = np.floor(places).astype(int)
    weights = np.zeros((size, size), np.float32)
    for source, weight in ((left, 1 - (places - left)), (left + 1, places - left)):
        inside = (source >= 0) & (source < size) & (places >= 0) & (places <= size - 1)
        weights[np.flatnonzero(inside), source[inside]] += weight[inside]
    return weights.reshape(size // block, block, size).mean(1)


def _table(x: np.ndarray) -> np.ndarray:
    x = finite(x, "x")
    if x.ndim < 2 or min(x.shape[:2]) < 2:
        raise EssayError(f"A crossed table needs two rows and two columns; this is {x.shape}.")
    x = x.reshape(*x.shape[:2], -1)
    x = x - x.mean((0, 1))
    if not np.ptp(x, axis=(0, 1)).any():
        raise EssayError("Nothing varies: all pictures are the same, and shares are undefined.")
    return x


def _shares(x: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Shares (draws, 3) for rows repeated by `weights` (draws, R); x is (R, C, d)."""
    columns = x.shape[1]
    rows = weights.sum(1)
    row_means = x.mean(1)
    column_means = (weights @ x.reshape(len(x), -1)).reshape(len(weights), columns, -1)
    column_means /= rows[:, None, None]
    grand = (column_means.mean(1) ** 2).sum(-1)
    total = weights @ (x**2).sum((1, 2)) - rows * columns * grand
    between_rows = columns * (weights @ (row_means**2).sum(-1) - rows * grand)
    between_columns = rows * ((column_means**2).sum((1, 2)) - columns * grand)
    parts = np.stack(_components(between_rows, between_columns, total, rows, columns), axis=1)
    return parts / parts.sum(1, keepdims=True)


def _components(between_rows, between_columns, total, rows, columns) -> tuple:
    """Variance components of rows, columns and the rest, from sums of squares about the mean."""
    residual = (total - between_rows - between_columns) / ((rows - 1) * (columns - 1))
    row = (between_rows / (rows - 1) - residual) / columns
    column = (between_columns / (columns - 1) - residual) / rows
    return row, column, residual


def _gram(x: np.ndarray) -> np.ndarray:
    """Inner products of all pictures of a table (R, C, d): (R C, R C)."""
    flat = x.reshape(-1, x.shape[-1])
    return flat @ flat.T


def _multiplicities(rng: np.random.Generator, draws: int, size: int) -> np.ndarray:
    """How often each of `size` units is drawn with replacement, (draws, size); two at least."""
    found = np.zeros((draws, size))
    while (again := found.max(1) == found.sum(1)).any():
        found[again] = rng.multinomial(size, np.full(size, 1 / size), size=int(again.sum()))
    return found


def _crossed_shares(gram: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Shares (draws, 3) for rows and columns repeated by weights (draws, R) and (draws, C).

    Components are mean inner products: of pictures in one row and two columns, less those that
    share neither, and so on. In a table without repetition these are the components of `_shares`.
    """
    r, c = rows.shape[1], columns.shape[1]
    table = gram.reshape(r, c, r, c)
    size = np.einsum("rcrc->rc", table)
    in_rows = _quadratic(columns, np.einsum("rcrd->rcd", table))
    in_columns = _quadratic(rows, np.einsum("rcsc->crs", table))
    cells = (rows[:, :, None] * columns[:, None, :]).reshape(len(rows), r * c)
    whole = np.einsum("ni,ni->n", cells @ gram, cells)

    def both(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.einsum("nr,rc,nc->n", a, size, b, optimize=True)

    row_pairs, column_pairs = r**2 - (rows**2).sum(1), c**2 - (columns**2).sum(1)
    row = (np.einsum("nr,nr->n", rows, in_rows) - both(rows, columns**2)) / (r * column_pairs)
    column = (np.einsum("nc,nc->n", columns, in_columns) - both(rows**2, columns)) / (c * row_pairs)
    neither = whole - np.einsum("nr,nr->n", rows**2, in_rows) + both(rows**2, columns**2)
    neither = neither - np.einsum("nc,nc->n", columns**2, in_columns)
    neither = neither / (row_pairs * column_pairs)
    one = both(rows, columns) / (r * c)
    parts = np.stack([row - neither, column - neither, one - row - column + neither], axis=1)
    return parts / parts.sum(1, keepdims=True)


def _quadratic(weights: np.ndarray, forms: np.ndarray) -> np.ndarray:
    """w' F w for each of the weights (n, k) and each of the forms (m, k, k): (n, m)."""
    k = weights.shape[1]
    pairs = (weights[:, :, None] * weights[:, None, :]).reshape(len(weights), k * k)
    return pairs @ forms.reshape(len(forms), k * k).T


def _picker(component: str):
    places = {"rows": [0], "columns": [1], "interaction": [2], "unnamed": [1, 2]}
    if component not in places:
        raise EssayError(f"Unknown component {component!r}: use one of {', '.join(places)}.")
    return lambda parts: parts[:, places[component]].sum(1)
