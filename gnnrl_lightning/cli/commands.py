"""What the subcommands do."""

from __future__ import annotations

import json as json_format
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import nn

from gnnrl_lightning.cli.comparing import DECIDED, agents_of, as_tuned, check_goes_on
from gnnrl_lightning.cli.running import RunningCLI
from gnnrl_lightning.cost.budget import Budget
from gnnrl_lightning.cost.metrics import METRICS
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.job.comparison import CompareOptions, Comparison
from gnnrl_lightning.job.compression import DENSE, POLICY, Compression, PhaseTrainers
from gnnrl_lightning.job.delivery import LATENCY_BATCH, deliver
from gnnrl_lightning.job.given_widths import as_widths, budget_of, deliver_widths, read_widths
from gnnrl_lightning.job.policy_search import SearchOptions
from gnnrl_lightning.job.prediction import as_json, predict
from gnnrl_lightning.job.runs import RunFolder
from gnnrl_lightning.job.task import finetune_artifact, inspect, save_weights
from gnnrl_lightning.processes import from_first, rank
from gnnrl_lightning.report.comparison import comparison_tables, run_line
from gnnrl_lightning.report.costs import RATIO, cost_names
from gnnrl_lightning.report.graph_figure import checked_suffix, graph_figure
from gnnrl_lightning.report.progress import hidden_steps, shown_steps
from gnnrl_lightning.report.table import inspection_tables, prediction_table, print_result
from gnnrl_lightning.rl.state.views import hierarchical_graph, simplified_graph
from gnnrl_lightning.training.finetune import quiet_trainer

# Figures of the pruned network for the loggers beside its costs: none of the test images, which no sweep may choose by.
LOGGED = ("top1_search", "latency_ms")


class CompressionCLI(RunningCLI):
    """The command line: a method for each subcommand."""

    def _compression(self, trainers: PhaseTrainers, budget: Budget | None = None) -> Compression:
        """The job, checked; the configuration has what was tuned from then on."""
        compression = Compression(
            self.task,
            budget or Budget(**self._get(self.config, "budget").as_dict()),
            as_tuned(self._get(self.config_init, "search"), self.unfinished),
            self._get(self.config_init, "pretraining"),
            self._get(self.config_init, "finetuning"),
            trainers,
            shown_steps if rank() == 0 else hidden_steps,
            self._device(),
        )
        for name in DECIDED:
            self._get(self.config, "search")[name] = getattr(compression.search, name)
        if compression.tuned is not None:
            self.console.print(str(compression.tuned), soft_wrap=True)
        return compression

    def _device(self) -> torch.device:
        """Where candidates are scored: the trainer's GPU, if it has one."""
        device = self.trainer.strategy.root_device
        return device if device.type == "cuda" else torch.device("cpu")

    def before_fit(self) -> None:
        """Check everything, open the run, train or load the dense network, score the starting candidates."""
        self.compression = self._compression(self.phase_trainer)
        iterations = self.compression.iterations(self.model, self.processes)
        self.compression.prepare(self.model)
        folder = self.open_run(self.resumed)
        self.compression.train_dense(folder)
        self.compression.start(folder, self.model)
        limit, whole = self._get(self.config_init, "trainer")["max_epochs"], self.model.iterations(iterations)
        self.trainer.fit_loop.max_epochs = whole if limit is None else min(limit, whole)

    def fit(self, **_: Any) -> None:
        """Search, as far as that has not been done before."""
        policy = self.folder.weights(POLICY)
        if not from_first(policy.is_file()):
            self.trainer.fit(self.model, ckpt_path=self.latest.found, weights_only=True)
            if rank() == 0:
                self.model.save_policy(policy)

    def after_fit(self) -> None:
        """Prune, fine-tune, test once, save, show."""
        result = deliver(self.compression, self.folder)
        if rank() > 0:
            return
        costs = cost_names(result["pruned"])
        logged = {*costs, *(f"{name}{RATIO}" for name in costs), *LOGGED}
        figures = {f"result/{name}": value for name, value in result["pruned"].items() if name in logged}
        print_result(result, LATENCY_BATCH, self.console)
        self.close_run(self.folder, figures)

    def pretrain(self, **_: Any) -> None:
        """Train the dense network and save its weights."""
        network = self.task.build()
        folder = self.open_run()
        self.task.train(network, self._get(self.config_init, "pretraining"), self.phase_trainer("dense"))
        if rank() == 0:
            save_weights(network, folder.weights(DENSE))
        self._close_training(folder, self.task.top1(network, self.datamodule.search))

    def finetune(self, **_: Any) -> None:
        """Train a pruned network or the dense one further and save it."""
        options = self._get(self.config_init, "finetuning")
        pruned = self._get(self.config, "artifact")
        if pruned is None:
            network = self.task.build()
            folder = self.open_run()
            self.task.train(network, options, self.phase_trainer("dense"))
            if rank() == 0:
                save_weights(network, folder.weights(DENSE))
            accuracy = self.task.top1(network, self.datamodule.search)
        else:
            restored = self.task.restore(pruned)
            folder = self.open_run()
            trainer = self.phase_trainer("pruned")
            accuracy = finetune_artifact(self.task, restored, options, folder.pruned, trainer)
        self._close_training(folder, accuracy)

    def _close_training(self, folder: RunFolder, accuracy: float) -> None:
        self.console.print(f"top-1 on the search split: {accuracy:.2f} %")
        self.close_run(folder, {"result/top1_search": accuracy})

    def validate(self, **_: Any) -> None:
        """Top-1 accuracy on the search split."""
        network = self._network()
        self.console.print(f"top-1 on the search split: {self.task.top1(network, self.datamodule.search):.2f} %")

    def test(self, **_: Any) -> None:
        """Top-1 accuracy on the test images."""
        network = self._network()
        self.console.print(f"top-1 on the test images: {self.task.top1(network, self.datamodule.test):.2f} %")

    def _network(self) -> nn.Module:
        pruned = self._get(self.config, "artifact")
        return self.task.build() if pruned is None else self.task.restore(pruned).network

    def compare(self, **_: Any) -> None:
        """Compare the agent with every other way to choose widths."""
        compression = self._compression(lambda phase: self.phase_trainer(phase) if phase == "dense" else self._quiet())
        options: CompareOptions = self._get(self.config_init, "compare")
        agents = agents_of(self._get(self.config, "model"), self._get(self.config, "search"), options.variants)

        for name, row in agents.items():
            if name not in {*options.methods, *options.variants}:
                continue
            try:
                compression.prepare(row.make(0), row.search)
            except UserError as error:
                raise UserError(f"compare: {name}: {error}") from error

        def report(row: dict[str, Any]) -> None:
            self.console.print(run_line(row), soft_wrap=True)

        comparison = Comparison(compression, options, agents, report)
        config = self.resolved_config()
        if self.unfinished is not None:
            check_goes_on(self.unfinished, config)
        folder = self.open_run(self.unfinished)
        figures = comparison.run(folder)
        for table in comparison_tables(figures):
            self.console.print(table)
        self.close_run(folder, {})

    def predict(self, json: str | None = None, **_: Any) -> None:
        """Tell the widths that a trained policy takes for some budgets."""
        _check_folder("--json", json)
        budgets: list[float] = self._get(self.config, "budgets")
        first = Budget(**self._get(self.config, "budget").as_dict() | {"macs": min(budgets)})
        search: SearchOptions = self._get(self.config_init, "search")
        compression = Compression(self.task, first, replace(search, macs_range=None), device=self._device())
        compression.prepare(self.model)
        found = as_json(compression, predict(compression, self.model, budgets))
        self.console.print(prediction_table(found))
        if json is not None:
            _write_json(json, found)

    def prune(self, widths: str | None = None, share: float | None = None, **_: Any) -> None:
        """Prune to given widths."""
        if widths is None:
            raise UserError("prune needs --widths FILE: what predict --json wrote, a result.json, or your own JSON")
        given = read_widths(widths, share)
        graph = self.task.trace()
        chosen = as_widths(graph, given)
        compression = self._compression(self.phase_trainer, budget_of(graph, chosen))
        folder = self.open_run()
        compression.train_dense(folder)
        result = deliver_widths(compression, chosen, folder)
        figures = {f"result/{name}": value for name, value in result["pruned"].items() if name in LOGGED}
        print_result(result, LATENCY_BATCH, self.console)
        self.close_run(folder, figures)

    def _quiet(self) -> Callable[..., Trainer]:
        """What makes the trainers of networks of which there are many."""
        settings = self._get(self.config_init, "trainer")
        return partial(quiet_trainer, **{name: settings[name] for name in ("accelerator", "devices", "precision")})

    def inspect(self, json: str | None = None, figure: str | None = None, **_: Any) -> None:
        """Show what can be pruned."""
        _check_folder("--json", json)
        _check_folder("--figure", figure)
        if figure is not None:
            checked_suffix(figure)
        graph = self.task.trace()
        own = self._get(self.config, "budget")["limits"] or {}
        found = inspect(graph, [*METRICS, *(metric for metric in own if metric not in METRICS)])
        for table in inspection_tables(found):
            self.console.print(table)
        if json is not None:
            _write_json(json, found)
        if figure is not None:
            views = hierarchical_graph(graph), simplified_graph(graph)
            graph_figure(*views, self.task.network.name).savefig(figure)


def _check_folder(option: str, path: str | None) -> None:
    """Refuse a file in a folder that there is not."""
    if path is not None and not Path(path).absolute().parent.is_dir():
        raise UserError(f"{option} {path}: there is no folder {Path(path).parent}")


def _write_json(path: str, contents: Any) -> None:
    Path(path).write_text(json_format.dumps(contents, indent=2) + "\n", encoding="utf-8")
