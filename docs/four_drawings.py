"""Draw the README's picture from the corpus: `python docs/four_drawings.py`."""

from pathlib import Path

import numpy as np
from PIL import Image

from essaylib import corpus

CONCEPTS = ("grinning face", "dog face", "pizza", "umbrella")
GAP = 24

drawings = corpus.load()
rows = []
for concept in CONCEPTS:
    row = [drawings.where(concept=concept, vendor=vendor).rgb()[0] for vendor in corpus.VENDORS]
    rows.append(
        np.concatenate([np.pad(x, ((0, 0), (0, GAP), (0, 0)), constant_values=255) for x in row], 1)
    )
grid = np.concatenate([np.pad(r, ((0, GAP), (0, 0), (0, 0)), constant_values=255) for r in rows])
Image.fromarray(grid[:-GAP, :-GAP]).save(
    Path(__file__).with_name("four-drawings.png"), optimize=True
)
