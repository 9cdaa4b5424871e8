"""A deep cut in several stages: larger budgets that are met first, one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from gnnrl_lightning.checks import shown
from gnnrl_lightning.cost.budget import BoundBudget, Budget
from gnnrl_lightning.cost.limit import parse_limit
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.options import at_least


@dataclass(frozen=True)
class StageOptions:
    """Larger budgets on the way to the budget: at each, the network is searched, pruned and fine-tuned.

    Args:
        shares: Share of the dense network's cost that each stage before the last one leaves, in every metric that the
            budget limits, falling, for example [0.7, 0.5] or [70%, 50%]; the last stage meets the budget itself. A
            metric whose own limit is larger has that limit. []: one stage.
        epochs: Epochs of fine-tuning in each of these stages: one number for all, or one for each; null: those of
            `finetuning`, whose other settings they share.

    Raises:
        UserError: The shares are not shares or do not fall, or their number differs from that of the epochs.
    """

    shares: list[float | str] = field(default_factory=list)
    epochs: int | list[int] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.shares, (list, tuple)):
            raise UserError(f"stages.shares is {shown(self.shares)}: expected a list of shares, for example [0.7, 0.5]")
        parsed = self.parsed
        if any(later >= earlier for earlier, later in pairwise(parsed)):
            raise UserError(f"stages.shares is {self.shares}: expected falling shares, for example [0.7, 0.5]")
        for epochs in self.epochs if isinstance(self.epochs, list) else [self.epochs]:
            at_least("stages", 0, epochs=epochs)
            if epochs is None and isinstance(self.epochs, list):
                raise UserError(f"stages.epochs is {self.epochs}: expected whole numbers")
        if isinstance(self.epochs, list) and len(self.epochs) != len(parsed):
            raise UserError(
                f"stages.epochs is {self.epochs} and stages.shares {self.shares}: expected one number for each share, "
                "or one for all; the last stage has finetuning.epochs"
            )

    @property
    def parsed(self) -> list[float]:
        """The shares as numbers."""
        limits = [parse_limit(given, "stages.shares") for given in self.shares]
        if not all(limit.relative for limit in limits):
            raise UserError(f"stages.shares is {self.shares}: expected shares of the dense network's cost, below 1")
        return [limit.value for limit in limits]

    def epochs_of(self, default: int) -> Sequence[int]:
        """Return the epochs of fine-tuning in each stage before the last one; `default` are those of the last one."""
        if isinstance(self.epochs, list):
            return self.epochs
        return [default if self.epochs is None else self.epochs] * len(self.shares)

    def budgets(self, limits: BoundBudget) -> list[Budget]:
        """Return the budget of each stage before the last one.

        Args:
            limits: The budget of the last stage, bound to the dense network.

        Raises:
            UserError: A share is not above that of the budget.
        """
        own = {name: limits.share(name) for name in limits.limits}
        for share in self.parsed:
            if share <= min(own.values()):
                least = ", ".join(f"{name} {value:.4g}" for name, value in own.items())
                raise UserError(
                    f"stages.shares has {share:g}, and the budget is {least} of the dense network: expected larger "
                    "shares than that; the budget itself is the last stage"
                )
        return [self._budget(limits.budget, own, share) for share in self.parsed]

    @staticmethod
    def _budget(budget: Budget, own: dict[str, float], share: float) -> Budget:
        named = zip(budget.limits.items(), own.values(), strict=True)
        wider = {key: share if least < share else given for (key, given), least in named}
        return Budget(wider, budget.channel_multiple, budget.min_width)

    def first(self, budget: Budget) -> Budget:
        """Return a budget near which the dense network is pruned first, before anything has been measured."""
        if not self.shares:
            return budget
        return Budget(dict.fromkeys(budget.limits, self.parsed[0]), budget.channel_multiple, budget.min_width)
