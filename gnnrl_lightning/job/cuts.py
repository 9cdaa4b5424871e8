"""A cut: candidates are pruned and fine-tuned with the same settings, and one of them is saved as an artifact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gnnrl_lightning.artifacts import artifact
from gnnrl_lightning.evaluation.result import Evaluation
from gnnrl_lightning.job.finetuning import Finetuned, finetune, keyed
from gnnrl_lightning.job.trained import Trained
from gnnrl_lightning.networks.copies import independent_copy
from gnnrl_lightning.processes import rank
from gnnrl_lightning.runs.folder import RunFolder
from gnnrl_lightning.surgery.plan import Plan


@dataclass(frozen=True)
class Cut:
    """A candidate, pruned and fine-tuned.

    Args:
        trained: The job, its network trained.
        candidate: The candidate, as the search scored it.
        plan: The channels that it keeps.
        before: The pruned and repaired network.
        after: The same after fine-tuning.
    """

    trained: Trained
    candidate: Evaluation
    plan: Plan
    before: nn.Module
    after: Finetuned

    @cached_property
    def network(self) -> nn.Module:
        """The network to deliver, a copy on the CPU, in evaluation mode."""
        return independent_copy(self.after.network).cpu().eval()

    @property
    def widths(self) -> list[int]:
        """Its widths, in the groups of the dense network."""
        return self.trained.job.dense_widths(self.candidate.widths).tolist()

    @property
    def costs(self) -> dict[str, int | float]:
        """Its costs, each with its ratio to that of the dense network."""
        return {**self.candidate.costs, **self.trained.job.limits.ratios(self.candidate.costs)}

    @property
    def scores(self) -> dict[str, Any]:
        """Its figures on the holdout: in the search, before and after fine-tuning, and after each epoch."""
        return {**keyed("search", self.candidate.scores), **self.after.figures}

    def save(
        self, folder: Path, budget: Mapping[str, Any], figures: Mapping[str, Any], formats: Sequence[str]
    ) -> Mapping[str, Any]:
        """Write the network as an artifact.

        Args:
            folder: Folder of the artifact.
            budget: The budget that it meets, for the record.
            figures: Its figures.
            formats: Names of `gnnrl_lightning.artifacts.formats.FORMATS`.

        Returns:
            Format -> what was loaded again, see `gnnrl_lightning.artifacts.artifact.save`.
        """
        job = self.trained.job
        with job.runtime.shown("export", 1) as advance:
            loaded = artifact.save(
                folder,
                self.network,
                dense=job.task.original(),
                steps=[*job.task.steps, artifact.step(job.graph, self.plan)],
                example=job.task.example(),
                description=artifact.Description(
                    job.task.record, dict(budget), job.task.data.transform_record(), dict(figures)
                ),
                formats=formats,
                calibration=lambda: job.task.example(job.final_examples),
            )
            advance()
        return loaded


def cut(trained: Trained, chosen: Mapping[str, Evaluation], folder: RunFolder) -> dict[str, Cut]:
    """Prune candidates and fine-tune them; a fine-tuning that has made a network worse on the holdout is undone.

    Args:
        trained: The job, its network trained.
        chosen: Phase ("pruned", and optionally "uniform" for comparison) -> scored candidate.
        folder: Folder of the run, from which an interrupted fine-tuning is resumed.

    Returns:
        Phase -> cut. With several processes, all of them train; empty in all but the first one.
    """
    pruner, before = trained.final_pruner, {}
    plans = {name: pruner.plan(torch.tensor(item.widths)) for name, item in chosen.items()}
    with trained.job.runtime.shown("final pruning", len(plans)) as advance:
        for name, plan in plans.items():
            before[name] = pruner.prune(plan)
            advance()
    after = finetune(trained, before, plans, folder)
    if rank() > 0:
        return {}
    return {name: Cut(trained, item, plans[name], before[name], after[name]) for name, item in chosen.items()}
