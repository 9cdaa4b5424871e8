"""The main job in plain Python; the command line and the notebooks call it.

```
compression = Compression(task, Budget(macs=0.5), search)         # checks everything, writes nothing
compression.train_dense(folder)                                   # where there is no checkpoint
agent.env = compression.start(folder)                             # scores the starting candidates
Trainer(max_epochs=search.iterations(agent.episodes_per_iteration)).fit(agent)
result = compression.deliver(folder)                              # prunes, fine-tunes, tests once, saves
```
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import nn

from gnnrl_lightning import artifact
from gnnrl_lightning.env import Evaluated, NegativeCrossEntropy, NegativeTop1Error, VectorPruningEnv
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.evaluation.evaluator import Evaluation, Evaluator
from gnnrl_lightning.evaluation.journal import Journal
from gnnrl_lightning.evaluation.latency import paired_latency_ms
from gnnrl_lightning.evaluation.pruner import Pruner, reads_moments
from gnnrl_lightning.evaluation.tables import sensitivity_table
from gnnrl_lightning.finetune import TrainingOptions, quiet_trainer
from gnnrl_lightning.graph.budget import Budget
from gnnrl_lightning.report.progress import SearchStatus
from gnnrl_lightning.runs import RunFolder, versions
from gnnrl_lightning.search.baselines import FROM_TABLE, STARTING, starting_candidates, table_candidates
from gnnrl_lightning.task import Task, save_weights
from gnnrl_lightning.traced import trace

LATENCY_BATCH = 64
DENSE_WEIGHTS = "dense.safetensors"
AGENT = "agent"
REWARDS: dict[str, Callable[[Evaluation], float]] = {
    "top1": NegativeTop1Error(),
    "cross_entropy": NegativeCrossEntropy(),
}

PhaseTrainers = Callable[[str], Callable[..., Trainer]]
"""Phase ("dense", "uniform", "pruned") -> what makes the trainer of that phase."""


def quiet_trainers(phase: str) -> Callable[..., Trainer]:
    """Trainers that show and write nothing."""
    return quiet_trainer


@dataclass(frozen=True)
class SearchOptions:
    """How candidates are found and made.

    Args:
        evaluations: Candidates scored on the search split at most, the starting candidates included.
        max_steps: Steps of a pruning episode at most; 1 makes it a one-step problem.
        max_ratio_per_step: Largest share of a group's channels that one step removes.
        importance: Which channels stay, a name in `gnnrl_lightning.pruning.importance`.
        repair: What is done to a sliced network, a key of `gnnrl_lightning.evaluation.pruner.REPAIRS`.
        calibration_images: Training images for importance and repair.
        reward: What the agent learns from: top1 (minus the error) or cross_entropy (minus it).
    """

    evaluations: int = 100
    max_steps: int = 5
    max_ratio_per_step: float = 0.3
    importance: str = "l2"
    repair: str = "batch_norm"
    calibration_images: int = 256
    reward: str = "top1"

    def __post_init__(self) -> None:
        """Refuse an unknown reward; the other values are checked where they are used."""
        if self.reward not in REWARDS:
            raise UserError(f"search.reward is {self.reward!r}: expected one of {', '.join(REWARDS)}")

    @property
    def reads_table(self) -> bool:
        """Whether there are starting candidates from a table of errors: where the pruner has the moments for it."""
        return reads_moments(self.importance, self.repair)

    @property
    def starting(self) -> int:
        """Number of starting candidates."""
        return len(STARTING) + (len(FROM_TABLE) if self.reads_table else 0)

    def iterations(self, episodes: int) -> int:
        """Epochs of the search's trainer: what the starting candidates leave.

        Args:
            episodes: Episodes of an iteration, each of which is an evaluation.

        Raises:
            UserError: Not one iteration is left.
        """
        count = (self.evaluations - self.starting) // episodes
        if count < 1:
            raise UserError(
                f"search.evaluations is {self.evaluations}: at least {self.starting + episodes} are needed, "
                f"for {self.starting} starting candidates and one iteration of {episodes} episodes"
            )
        return count

    def evaluations_of(self, iterations: int, episodes: int) -> int:
        """Evaluations of a whole search with this many iterations."""
        return self.starting + iterations * episodes


class Compression:
    """One run of the main job: a network and a budget go in, a smaller network comes out.

    Args:
        task: The network and its images.
        budget: What the smaller network may cost.
        search: How candidates are found.
        pretrain: How the dense network is trained, where it has no checkpoint.
        finetune: How pruned networks are fine-tuned, uniform and ours alike.
        trainers: Makes the trainers of the training phases.

    Raises:
        UserError: Anything about the input is wrong; nothing has been written then.
    """

    def __init__(
        self,
        task: Task,
        budget: Budget,
        search: SearchOptions | None = None,
        pretrain: TrainingOptions | None = None,
        finetune: TrainingOptions | None = None,
        trainers: PhaseTrainers = quiet_trainers,
    ) -> None:
        self.task, self.budget, self.trainers = task, budget, trainers
        self.search = search or SearchOptions()
        self.pretrain, self.finetune = pretrain or TrainingOptions(), finetune or TrainingOptions()
        if self.pretrain.distillation_weight > 0:
            raise UserError("pretraining.distillation_weight needs a teacher, which only finetuning has")
        self.dense = task.build()
        self.graph = trace(self.dense, task.example())
        if not self.graph.groups:
            raise UserError(f"{task.network.class_path} has no channels that can be pruned; inspect says why")
        budget.limits(self.graph)
        if bool(budget.met(self.graph, self.graph.widths[None])[0]):
            raise UserError(f"{task.network.class_path} meets the budget as it is: nothing to prune")
        self.starting = starting_candidates(self.graph, budget)
        calibration = task.data.calibration(self.search.calibration_images)
        self.pruner = Pruner(self.graph, self.dense, calibration, self.search.importance, self.search.repair)
        self.evaluator = self._evaluator(None)
        self.env = self._env()
        self.scored: dict[str, Evaluation] = {}
        self._began = 0.0

    def _evaluator(self, journal: Journal | None) -> Evaluator:
        data = self.task.data
        return Evaluator(self.pruner, data.search, data.normalize, data.eval_batch_size, journal)

    def _env(self) -> VectorPruningEnv:
        return VectorPruningEnv(
            self.graph,
            Evaluated(self.evaluator, REWARDS[self.search.reward], AGENT),
            self.budget,
            self.search.max_steps,
            self.search.max_ratio_per_step,
        )

    def train_dense(self, folder: RunFolder) -> None:
        """Train the dense network and save its weights, unless a checkpoint gave them."""
        if self.task.checkpoint is None:
            self.task.train(self.dense, self.pretrain, self.trainers("dense"))
            save_weights(self.dense, folder.checkpoints / DENSE_WEIGHTS)

    def start(self, folder: RunFolder) -> VectorPruningEnv:
        """Score the starting candidates; the agent searches in the environment that is returned."""
        self._began = time.perf_counter()
        self.evaluator = self._evaluator(Journal(folder.journal))
        self.env = self._env()
        starting = self.starting
        if self.search.reads_table:
            table = sensitivity_table(self.pruner, self.pruner.calibration)
            starting = starting | table_candidates(self.graph, self.budget, table)
        self.scored = {name: self.evaluator(widths, name) for name, widths in starting.items()}
        return self.env

    def status(self) -> SearchStatus:
        """How far the search is."""
        best = self.evaluator.best
        if best is None:
            return SearchStatus(0)
        ratio = best.macs / self._dense_cost()["macs"]
        return SearchStatus(self.evaluator.count, REWARDS[self.search.reward](best), ratio)

    def deliver(self, folder: RunFolder) -> dict[str, Any]:
        """Prune the best candidate and the uniform one, fine-tune both alike, test once, save.

        Returns:
            The figures, as written to result.json.
        """
        seconds = time.perf_counter() - self._began
        best = self.evaluator.best
        if best is None:
            raise RuntimeError("deliver() comes after start()")
        chosen = {"uniform": self.scored["uniform"], "pruned": best}
        plans = {name: self.pruner.plan(torch.tensor(item.widths)) for name, item in chosen.items()}
        before = {name: self.pruner.prune(plan) for name, plan in plans.items()}
        after = copy.deepcopy(before)
        for name, network in after.items():
            self.task.train(network, self.finetune, self.trainers(name), teacher=self.dense)
        result = self._figures(chosen, before, after, seconds)
        artifact.save(
            folder.pruned,
            after["pruned"],
            dense=self.dense,
            graph=self.graph,
            plan=plans["pruned"],
            example=self.task.example(),
            description=artifact.Description(
                asdict(self.task.network),
                result["budget"],
                self.task.data.transform_record(),
                result["pruned"],
            ),
        )
        folder.write_result(result)
        return result

    def _dense_cost(self) -> dict[str, int]:
        cost, widths = self.graph.cost, self.graph.widths
        return {"macs": int(cost.macs(widths)), "params": int(cost.params(widths))}

    def _figures(
        self,
        chosen: dict[str, Evaluation],
        before: dict[str, nn.Module],
        after: dict[str, nn.Module],
        seconds: float,
    ) -> dict[str, Any]:
        """The only place where the test images are read."""
        data, cost = self.task.data, self._dense_cost()
        batch = self.task.example().expand(LATENCY_BATCH, -1, -1, -1).contiguous()
        latency = paired_latency_ms({"dense": self.dense, **after}, batch)
        rows = {
            name: {
                "macs": item.macs,
                "params": item.params,
                "macs_ratio": item.macs / cost["macs"],
                "params_ratio": item.params / cost["params"],
                "top1_search": item.top1,
                "top1_test_before": self.task.top1(before[name], data.test),
                "top1_test_after": self.task.top1(after[name], data.test),
                "latency_ms": latency[name],
                "widths": list(item.widths),
            }
            for name, item in chosen.items()
        }
        dense = {**cost, "top1_test": self.task.top1(self.dense, data.test), "latency_ms": latency["dense"]}
        agent = self.evaluator.best_by(AGENT)
        return {
            "network": self.task.network.name,
            "dataset": data.name,
            "budget": {name: value for name, value in asdict(self.budget).items() if value is not None},
            "dense": dense,
            **rows,
            "search": {
                "evaluations": self.evaluator.count,
                "images": self.evaluator.images,
                "seconds": seconds,
                "seed": self.task.seed,
                "found_by": chosen["pruned"].proposer,
                "agent_best": None if agent is None else agent.top1,
            },
            "versions": versions(),
        }
