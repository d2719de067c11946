"""Muon, momentum whose matrix updates are orthogonalised (Jordan et al. 2024), beside AdamW.

torch's own Muon takes plain matrices only; most of these networks are convolutions, whose kernels
are flattened here to matrices of (outputs, inputs × height × width).
"""

from __future__ import annotations

import torch


class Muon(torch.optim.AdamW):
    """AdamW with a second rule for parameter groups that say `orthogonal=True`.

    In those groups `lr` is the size of the step relative to the matrix's own scale: the update has
    singular values near one, times `sqrt(max(1, outputs / inputs))`.
    """

    @torch.no_grad()
    def step(self, closure=None):
        """Take one step of both rules."""
        matrices = [g for g in self.param_groups if g.get("orthogonal")]
        kept, self.param_groups = (
            self.param_groups,
            [g for g in self.param_groups if not g.get("orthogonal")],
        )
        super().step(closure)
        self.param_groups = kept
        for group in matrices:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._orthogonal_step(parameter, group)

    def _orthogonal_step(self, parameter: torch.Tensor, group: dict) -> None:
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        momentum = state["momentum"].lerp_(parameter.grad, 0.05)
        update = parameter.grad.lerp(momentum, 0.95)
        flat = orthogonalise(update.reshape(len(update), -1))
        scale = max(1, flat.shape[0] / flat.shape[1]) ** 0.5
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.add_(flat.view_as(parameter), alpha=-group["lr"] * scale)


def orthogonalise(matrix: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """Return a matrix with the same singular vectors and singular values between 0.7 and 1.2.

    Newton-Schulz iteration of a quintic whose coefficients were chosen for speed, not for
    exactness: Jordan et al. (2024), "Muon: an optimizer for hidden layers in neural networks".
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrix / (matrix.norm() + 1e-7)
    tall = x.shape[0] > x.shape[1]
    x = x.mT if tall else x
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x
