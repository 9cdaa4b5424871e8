"""A network for `faults.py` of which whole groups may go."""

from __future__ import annotations

from torch import Tensor, nn


class Residual(nn.Module):
    """Two residual blocks of linear layers: `(N, 10)` to `(N, 1)`."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(10, 24), nn.Linear(24, 1)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(24, 32), nn.ReLU(), nn.Linear(32, 24)) for _ in range(2))

    def forward(self, inputs: Tensor) -> Tensor:
        """Outputs for normalised inputs."""
        found = self.stem(inputs).relu()
        for block in self.blocks:
            found = found + block(found)
        return self.head(found)
