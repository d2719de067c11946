"""Muon, momentum whose matrix updates are orthogonalised (Jordan et al. 2024).

torch's own Muon takes plain matrices only; most of these networks are convolutions, whose kernels
are flattened here to matrices of (outputs, inputs × height × width).
"""

from __future__ import annotations

import torch


class Muon(torch.optim.Optimizer):
    """Nesterov momentum with orthogonalised updates, for matrices and convolution kernels.

    The update has singular values near one, times `lr * sqrt(max(1, outputs / inputs))`.
    """

    def __init__(self, params, lr: float, momentum: float = 0.95, weight_decay: float = 0.01):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:
        """Take one step."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._step(parameter, group)

    def _step(self, parameter: torch.Tensor, group: dict) -> None:
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        momentum = state["momentum"].lerp_(parameter.grad, 1 - group["momentum"])
        update = parameter.grad.lerp(momentum, group["momentum"])
        flat = orthogonalise(update.reshape(len(update), -1))
        scale = max(1, flat.shape[0] / flat.shape[1]) ** 0.5
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.add_(flat.view_as(parameter), alpha=-group["lr"] * scale)


def orthogonalise(matrix: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """Return a matrix with the same singular vectors and singular values near one.

    Newton-Schulz iteration of a quintic whose coefficients were chosen for speed, not for
    exactness (the values end between about 0.7 and 1.2): Jordan et al. (2024), "Muon: an optimizer
    for hidden layers in neural networks". Every iterate is a polynomial in the Gram matrix times
    the matrix, so the iteration runs on the Gram matrix, the smaller of the two, and the matrix
    is multiplied once.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrix / (matrix.norm() + 1e-7)
    tall = x.shape[0] > x.shape[1]
    x = x.mT if tall else x
    gram = x @ x.mT
    product = None
    for _ in range(steps):
        factor = torch.addmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal().add_(a)
        product = factor if product is None else factor @ product
        gram = factor @ (factor @ gram)  # polynomials in one matrix commute
    x = product @ x
    return x.mT if tall else x
