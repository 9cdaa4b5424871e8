"""The main job in plain Python; the command line and the notebooks call it.

```
compression = Compression(task, Budget(macs=0.5), search)         # checks everything, writes nothing
compression.train_dense(folder)                                   # where there is no checkpoint
real = compression.iterations(agent)                              # what the evaluations are enough for
compression.start(folder, agent)                                  # table, starting candidates, environments
Trainer(max_epochs=agent.iterations(real)).fit(agent)
result = compression.deliver(folder)                              # prunes, fine-tunes, tests once, saves
```
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import cached_property
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import nn

from gnnrl_lightning import artifact
from gnnrl_lightning.env import Evaluated
from gnnrl_lightning.env.reward import find_reward
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.evaluation.evaluation import Evaluation, best_of, within
from gnnrl_lightning.evaluation.evaluator import Evaluator
from gnnrl_lightning.evaluation.journal import Journal
from gnnrl_lightning.evaluation.journalled import Journalled
from gnnrl_lightning.evaluation.latency import paired_latency_ms
from gnnrl_lightning.evaluation.pruner import Pruner
from gnnrl_lightning.evaluation.racing import random_order
from gnnrl_lightning.evaluation.short_finetune import ShortFinetune
from gnnrl_lightning.evaluation.tables import ErrorTable, error_table
from gnnrl_lightning.evaluation.tuning import AUTO, BATCH_SIZES, Tuned, tune
from gnnrl_lightning.finetune import TrainingOptions, quiet_trainer
from gnnrl_lightning.graph.budget import Budget
from gnnrl_lightning.module.base import GraphLearner
from gnnrl_lightning.policy_search import AGENT, SearchOptions, connect, environment
from gnnrl_lightning.report.progress import SearchStatus
from gnnrl_lightning.runs import RunFolder, versions
from gnnrl_lightning.search.baselines import starting_candidates
from gnnrl_lightning.search.problem import SearchProblem
from gnnrl_lightning.task import Task, save_weights
from gnnrl_lightning.traced import trace

LATENCY_BATCH = 64
DENSE_WEIGHTS = "dense.safetensors"
POLICY = "policy.safetensors"

PhaseTrainers = Callable[[str], Callable[..., Trainer]]
"""Phase ("dense", "uniform", "pruned") -> what makes the trainer of that phase."""


def quiet_trainers(phase: str) -> Callable[..., Trainer]:
    """Trainers that show and write nothing."""
    return quiet_trainer


class Compression:
    """One run of the main job: a network and a budget go in, a smaller network comes out.

    Args:
        task: The network and its images.
        budget: What the smaller network may cost.
        search: How candidates are found.
        pretrain: How the dense network is trained, where it has no checkpoint.
        finetune: How pruned networks are fine-tuned, uniform and ours alike.
        trainers: Makes the trainers of the training phases.

    Attributes:
        search: How candidates are found; its precision and batch size are the tuned ones where it asked for that.
        tuned: What was measured for these; None: nothing.

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
        calibration = task.data.calibration(self.search.calibration_images)
        self.pruner = Pruner(self.graph, self.dense, calibration, self.search.importance, self.search.repair)
        self.tuned = self._tune() if self.search.precision == AUTO else None
        if self.tuned is not None:
            self.search = replace(self.search, precision=self.tuned.precision, batch_size=self.tuned.batch_size)
        self.problem = self.make_problem(budget, Journal())
        self._began = 0.0

    def _tune(self) -> Tuned:
        """The fastest way to score candidates, measured on the dense network; an untrained one takes as long."""
        data, size = self.task.data, self.search.batch_size
        sizes = BATCH_SIZES if size is None else (size,)
        images = data.search.images[random_order(len(data.search))[: max(sizes)]]
        return tune(self.dense, self.pruner.layers, data.normalize(images), sizes)

    def make_evaluator(self, error: float | None = None) -> Evaluator:
        """What scores candidates, and knows none yet.

        Args:
            error: With which candidates race; None: each is scored on the whole search split.
        """
        data, precision = self.task.data, self.search.precision
        images = data.search, data.normalize, self.search.batch_size or data.eval_batch_size
        return Evaluator(self.pruner, *images, precision, self._short(), error)

    def make_problem(
        self, budget: Budget, journal: Journal, agent: SearchOptions | None = None
    ) -> SearchProblem[Evaluation]:
        """A search that has not begun, with all evaluations left, and its own evaluator.

        Args:
            budget: What a candidate may cost.
            journal: Where its evaluations are written.
            agent: What the episodes of an agent are that searches; None: as for all. One that has a budget for each
                episode races with none.
        """
        search, error = self.search, (agent or self.search).drop_error
        return SearchProblem(
            self.graph,
            budget,
            Journalled(self.make_evaluator(error), journal, self._ratio),
            search.evaluations,
            starting_candidates(self.graph, budget),
            None if search.table is None else lambda: self.table,
            self._evaluation_images,
            self.pruner,
        )

    def _ratio(self, macs: int) -> float:
        return macs / self._dense_cost()["macs"]

    @property
    def _evaluation_images(self) -> int:
        data = self.task.data
        return self.search.evaluation_images(len(data.search), min(data.batch_size, len(data.train)))

    def _short(self) -> ShortFinetune | None:
        """The training of candidates before they are scored."""
        data, search = self.task.data, self.search
        if search.finetune_steps == 0:
            return None
        options = {"batch_size": data.batch_size, "seed": self.task.seed, "precision": search.precision}
        return ShortFinetune(data.train, data.augment, data.normalize, search.finetune_steps, **options)

    @cached_property
    def table(self) -> ErrorTable:
        """What narrowing one group costs: made once, when the dense network is trained."""
        return error_table(self.search.table or "sensitivity", self.pruner)

    def iterations(self, agent: GraphLearner) -> int:
        """Iterations of the agent in the real environment.

        Raises:
            UserError: There are not enough evaluations for one.
        """
        return self.search.iterations(self.graph, self._evaluation_images, agent.episodes_per_iteration)

    def prepare(self, agent: GraphLearner, search: SearchOptions | None = None) -> None:
        """Make the agent's policy, in an environment that scores nothing yet.

        Args:
            agent: The agent.
            search: What its episodes are; None: as for all.

        Raises:
            UserError: The policy cannot be made, or does not fit.
        """
        search = search or self.search
        reward = Evaluated(self.problem.ask, find_reward(search.reward), AGENT)
        agent.env = environment(self.graph, self.budget, search, reward)
        try:
            agent.configure_model()
        except UserError:
            raise
        except Exception as error:  # the user's own policy may raise anything
            raise UserError(f"model.actor_critic cannot be made: {' '.join(str(error).split())}") from error

    def train_dense(self, folder: RunFolder) -> None:
        """Train the dense network and save its weights, unless a checkpoint gave them."""
        if self.task.checkpoint is None:
            self.task.train(self.dense, self.pretrain, self.trainers("dense"))
            save_weights(self.dense, folder.checkpoints / DENSE_WEIGHTS)

    def start(self, folder: RunFolder, agent: GraphLearner) -> None:
        """Make the table, score the starting candidates, and give the agent its environments."""
        self._began = time.perf_counter()
        self.problem = self.make_problem(self.budget, Journal(folder.journal))
        self.problem.start(from_table=self.search.table is not None)
        connect(agent, self.problem, self.search)

    def best(self) -> Evaluation | None:
        """The best evaluation within the budget so far."""
        return best_of(self._within())

    def _within(self) -> list[Evaluation]:
        return [item for item in self.problem.history if within(self.graph, self.budget, item)]

    def status(self) -> SearchStatus:
        """How far the search is."""
        best = self.best()
        if best is None:
            return SearchStatus(self.problem.spent)
        return SearchStatus(self.problem.spent, find_reward(self.search.reward)(best), self._ratio(best.macs))

    def final_pruner(self) -> Pruner:
        """Prunes what is delivered, with as many calibration images as are meant for that."""
        images = min(self.search.final_calibration_images, len(self.task.data.train))
        if images <= len(self.pruner.calibration):
            return self.pruner
        return self.pruner.with_calibration(self.task.data.calibration(images))

    def deliver(self, folder: RunFolder) -> dict[str, Any]:
        """Prune the best candidate and the uniform one, fine-tune both alike, test once, save.

        Returns:
            The figures, as written to result.json.
        """
        seconds = time.perf_counter() - self._began
        best, uniform = self.best(), best_of(self.problem.history, "uniform")
        if best is None or uniform is None:
            raise RuntimeError("deliver() comes after start()")
        chosen, pruner = {"uniform": uniform, "pruned": best}, self.final_pruner()
        plans = {name: pruner.plan(torch.tensor(item.widths)) for name, item in chosen.items()}
        before = {name: pruner.prune(plan) for name, plan in plans.items()}
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
        agent = best_of(self._within(), AGENT)
        return {
            "network": self.task.network.name,
            "dataset": data.name,
            "budget": {name: value for name, value in asdict(self.budget).items() if value is not None},
            "dense": dense,
            **rows,
            "search": {
                "evaluations": self.problem.spent,
                "images": self.problem.images,
                "seconds": seconds,
                "seed": self.task.seed,
                "found_by": chosen["pruned"].proposer,
                "agent_best": None if agent is None else agent.top1,
            },
            "versions": versions(),
        }
