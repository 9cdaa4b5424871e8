"""What a comparison runs: methods, seeds, budgets, test examples."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from gnnrl_lightning.checks import as_seed, one_of, shown
from gnnrl_lightning.cost.budget import BoundBudget, Budget
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.options import check_fields
from gnnrl_lightning.rl.environments import AGENT
from gnnrl_lightning.search.methods import METHODS

DDPG_METHOD = "ddpg"
"""Name of the paper's other algorithm, with its own settings, in the same environments as the agent."""

HALVES = {"all": slice(None), "even": slice(0, None, 2), "odd": slice(1, None, 2)}
"""Which of the test examples are read, by their index in the data module's order."""


@dataclass(frozen=True)
class CompareOptions:
    """The methods, seeds and budgets of a comparison.

    Args:
        methods: Names of methods (those of `variants` included), or import paths of your own, see
            `gnnrl_lightning.search.methods`. The first agent is compared with each of the others.
        seeds: Seeds of the agent, of every other random method, and of fine-tuning.
        budgets: Each is run in place of the configured one: a share of the dense MACs, which replaces budget.macs, or
            limits by metric, which replace all limits, with `channel_multiple` and `min_width` if they differ, for
            example `{latency: 40%, min_width: 0}`; null: only the configured budget.
        test_half: Test examples to read, by index: all, even (development) or odd (final).
        finetune: Fine-tune every winner with the same settings and test it again; every method is run for each seed.
        variants: Further agents: name -> changes to the sections `model` and `episode`.
    """

    methods: list[str] = field(default_factory=lambda: [AGENT, DDPG_METHOD, *METHODS])
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    budgets: list[float | dict[str, Any]] | None = None
    test_half: Literal["all", "even", "odd"] = "all"
    finetune: bool = False
    variants: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse invalid values; Python does not check the hints."""
        check_fields(self, "compare")
        for name, values in (("methods", self.methods), ("seeds", self.seeds), ("budgets", self.budgets or [])):
            if not isinstance(values, (list, tuple)):
                raise UserError(f"compare.{name} is {shown(values)}: expected a list")
            if any(value in values[:place] for place, value in enumerate(values)):
                raise UserError(f"compare.{name} is {values}: expected each once")
        known = [AGENT, DDPG_METHOD, *self.variants, *METHODS]
        unknown = [name for name in self.methods if name not in known and "." not in name]
        if unknown or not self.methods:
            given = ", ".join(unknown) or "nothing"
            raise UserError(f"compare.methods has {given}: expected some of {', '.join(known)}, or import paths")
        for name in self.methods:
            if name not in known:
                METHODS.find(name, "compare.methods")
        for name in self.variants:
            if not re.fullmatch(r"[\w.]+", name) or name in (AGENT, DDPG_METHOD, *METHODS):
                raise UserError(f"compare.variants has {name!r}: expected a new name of letters, digits, _ and .")
        if not self.seeds:
            raise UserError("compare.seeds is []: expected one seed, at least")
        for seed in self.seeds:
            as_seed("a seed in compare.seeds", seed)
        shares = [given for given in self.budgets or [] if not isinstance(given, Mapping)]
        if self.budgets == [] or any(not _is_share(share) for share in shares):
            raise UserError(
                f"compare.budgets is {self.budgets}: expected shares of the dense MACs below 1, limits by metric as "
                "{latency: 40%}, or null"
            )
        one_of("compare.test_half", self.test_half, HALVES)


def _is_share(given: Any) -> bool:
    return isinstance(given, (int, float)) and 0 < given < 1


def in_place(limits: BoundBudget, given: float | Mapping[str, Any]) -> tuple[float | str, BoundBudget]:
    """Return the label of one of `CompareOptions.budgets`, and the budget in place of the configured one.

    Raises:
        UserError: It is not a budget, or cannot be reached.
    """
    if not isinstance(given, Mapping):
        share = limits.with_limits(macs=given)
        return share.label, share
    own, budget = dict(given), limits.budget
    multiple = own.pop("channel_multiple", budget.channel_multiple)
    least = own.pop("min_width", budget.min_width)
    label = ",".join(f"{name}={value}" for name, value in given.items())
    return label, Budget(own, multiple, least).on(limits.graph)
