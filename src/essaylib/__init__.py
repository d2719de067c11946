"""Open a latent diffusion model, measure what it does, keep the figures.

Nothing heavy is imported here: import the module you need (`from essaylib import models`).
"""

__version__ = "0.1.0"
