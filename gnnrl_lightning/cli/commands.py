"""The implementation of the subcommands."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import nn

from gnnrl_lightning.artifacts.formats import check_exportable
from gnnrl_lightning.cli.comparing import agents_of, as_decided, check_resumable, prepare
from gnnrl_lightning.cli.output_files import check_file, write_json
from gnnrl_lightning.cli.running import RunningCLI
from gnnrl_lightning.cost.budget import Budget
from gnnrl_lightning.cost.metrics import METRICS
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.files import os_errors, replacing
from gnnrl_lightning.job.checked import Checked, check
from gnnrl_lightning.job.compare_options import CompareOptions
from gnnrl_lightning.job.comparison import Comparison
from gnnrl_lightning.job.deciding import decided_training
from gnnrl_lightning.job.delivery import Delivered
from gnnrl_lightning.job.finetuning import save_finetuned, worse
from gnnrl_lightning.job.given_widths import as_widths, budget_of, deliver_widths, read_widths
from gnnrl_lightning.job.inspection import inspect
from gnnrl_lightning.job.job import PhaseTrainers, Runtime
from gnnrl_lightning.job.lossy import approximations
from gnnrl_lightning.job.prediction import check_budgets, predict, record_of
from gnnrl_lightning.job.reporting import evidence, write_report
from gnnrl_lightning.job.stage_options import StageOptions
from gnnrl_lightning.job.stages import fits_agent, search_and_deliver
from gnnrl_lightning.job.trained import train
from gnnrl_lightning.networks import save_weights
from gnnrl_lightning.networks.copies import independent_copy
from gnnrl_lightning.objective.protocol import record
from gnnrl_lightning.processes import from_first, rank
from gnnrl_lightning.report.comparison import comparison_tables, run_line
from gnnrl_lightning.report.costs import RATIO, cost_names
from gnnrl_lightning.report.graph_figure import checked_suffix, graph_figure
from gnnrl_lightning.report.loggers import publish
from gnnrl_lightning.report.metrics import RESULT
from gnnrl_lightning.report.progress import hidden_steps, shown_steps
from gnnrl_lightning.report.table import inspection_tables, prediction_table, print_result
from gnnrl_lightning.rl.state.views import hierarchical_graph, simplified_graph
from gnnrl_lightning.runs.folder import DENSE, PRUNED, RunFolder
from gnnrl_lightning.surgery.masks import zeros_held
from gnnrl_lightning.training.options import TrainingOptions
from gnnrl_lightning.training.train import quiet_trainer

# Figures of the pruned network to log besides its costs. None is measured on the test examples: sweeps must not
# select by them.
LOGGED = ("latency_ms",)


class CompressionCLI(RunningCLI):
    """The command line: a method for each subcommand."""

    def _checked(
        self,
        trainers: PhaseTrainers,
        budget: Budget | None = None,
        fits: Callable[[Checked, bool], None] = lambda checked, measured: None,
    ) -> Checked:
        """Check the job, and write its resolved options back into the configuration.

        Args:
            trainers: Creates the trainers of the training phases.
            budget: Upper limits on the costs; None: as configured.
            fits: As for `check`.
        """
        options = self.options
        if self.subcommand == "prune":  # to the widths, at once
            options = replace(options, stages=StageOptions())
        asked = budget or self._budget()
        if self.unfinished is not None:
            options, asked = as_decided(options, asked, self.unfinished)
        runtime = Runtime(trainers, shown_steps if rank() == 0 else hidden_steps, self._device())
        earlier = self.resumed or self.unfinished
        checked = check(self.task, asked, options, runtime, earlier, fits=fits)
        for section, values in asdict(checked.job.options).items():
            for name, value in values.items():
                self._get(self.config, section)[name] = value
        for measured in filter(None, (checked.job.latency, *checked.measured)):
            self.console.print(str(measured), soft_wrap=True)
        if budget is None:
            multiple = checked.job.limits.budget.channel_multiple
            self._get(self.config, "budget")["channel_multiple"] = multiple
        return checked

    def _budget(self, **changes: Any) -> Budget:
        return Budget(**self._get(self.config, "budget").as_dict() | changes)

    def _device(self) -> torch.device:
        """Return the device that scores candidates: the trainer's GPU, if it has one, else the CPU."""
        device = self.trainer.strategy.root_device
        return device if device.type == "cuda" else torch.device("cpu")

    def fit(self, **_: Any) -> None:
        """Search, prune, fine-tune, test once, save and show the result."""
        checked = self._checked(self.phase_trainer, fits=fits_agent(self.model, self.processes))
        folder = self.open_run(self.resumed)
        self._show(search_and_deliver(checked, self.model, folder, self.search), folder)

    def _show(self, delivered: Delivered | None, folder: RunFolder) -> None:
        """Show and log the result in the first process."""
        if delivered is None:
            return
        rows = {"": delivered.figures[PRUNED]}
        for stage in delivered.figures.get("stages", [])[:-1]:
            rows[f"stage-{stage['stage']}/"] = stage
        print_result(dict(delivered.figures), self.console)
        self._report(folder)
        found = {f"{key}{RESULT}{name}": value for key, row in rows.items() for name, value in _logged(row).items()}
        self.close_run(folder, found)

    def _report(self, folder: RunFolder) -> None:
        """Write the report of a finished run from its files, and show the loggers the same."""
        for logger in self.trainer.loggers:
            logger.save()
        write_report(folder, str(self.subcommand))
        publish(self.trainer.loggers, evidence(folder))

    def pretrain(self, **_: Any) -> None:
        """Train the dense network and save its weights."""
        network = self.task.build()
        options = self._decided(network, "pretraining")
        folder = self.open_run(self.resumed)
        self._train(network, options, folder, DENSE)
        if rank() == 0:
            _save_dense(network, folder)
        self._close_training(folder, DENSE, self.task.figures(network, self.datamodule.holdout))

    def finetune(self, **_: Any) -> None:
        """Train a pruned network or the dense one further and save it, or the one before if that is better."""
        network, task = self.task.build(), self.task
        options, pruned, delivery = self._decided(network, "finetuning"), task.artifact, self.options.delivery
        if pruned is not None:
            check_exportable(delivery.formats, network, task.example())
        folder, phase = self.open_run(self.resumed), DENSE if pruned is None else PRUNED
        before, start = independent_copy(network), task.scored(network, self.datamodule.holdout)
        self._train(network, options, folder, phase)
        end = task.scored(network, self.datamodule.holdout)
        if worse(task, start, end):
            network, end = before, start
            self.console.print("the network before fine-tuning is saved: try a smaller finetuning.learning_rate")
        scores = end[1]
        if rank() == 0 and pruned is None:
            _save_dense(network, folder)
        elif rank() == 0:
            loaded = save_finetuned(task, network, scores, folder.pruned, delivery)
            for name, each in approximations(task, folder.pruned, loaded).items():
                held = task.line("holdout", task.figures(each, self.datamodule.holdout))
                self.console.print(f"{name}: {held}")
        self._close_training(folder, phase, scores)

    def _decided(self, network: nn.Module, section: str) -> TrainingOptions:
        """Check the options of a training, and write what was "auto" back into the configuration."""
        options: TrainingOptions = getattr(self.options, section)
        self.task.check_training(network, options, section)
        if options.open:
            options, found = decided_training(options, self.task, network)
            self.console.print(str(found), soft_wrap=True)
        for name in ("precision", "channels_last"):
            self._get(self.config, section)[name] = getattr(options.closed, name)
        return options.closed

    def _train(self, network: nn.Module, options: TrainingOptions, folder: RunFolder, phase: str) -> None:
        """Train a network in place, from the checkpoint of the last complete epoch if there is one."""
        options = from_first(options)  # each process has measured by itself
        with zeros_held(network, self.task.masked):
            self.task.train(network, options, self.phase_trainer(phase), checkpoint=folder.checkpoint(phase))

    def _close_training(self, folder: RunFolder, phase: str, scores: dict[str, float]) -> None:
        self.console.print(self.task.line("holdout", scores))
        self.close_run(folder, {f"{RESULT}{name}_search": value for name, value in scores.items()})
        if rank() == 0:
            folder.checkpoint(phase).unlink(missing_ok=True)  # a run that ends earlier resumes from it

    def validate(self, **_: Any) -> None:
        """Print the primary figure on the holdout."""
        network = self.task.build()
        self.console.print(self.task.line("holdout", self.task.figures(network, self.datamodule.holdout)))

    def test(self, **_: Any) -> None:
        """Print the primary figure on the test examples."""
        network = self.task.build()
        self.console.print(self.task.line("test examples", self.task.figures(network, self.datamodule.test)))

    def compare(self, **_: Any) -> None:
        """Compare the agent with every other search method."""
        options: CompareOptions = self._get(self.config_init, "compare")
        agents = agents_of(self.config[str(self.subcommand)], options.variants)
        asked = {name: row for name, row in agents.items() if name in {*options.methods, *options.variants}}
        trainers = lambda phase: self.phase_trainer(phase) if phase == DENSE else self._quiet()  # noqa: E731
        checked = self._checked(trainers, fits=partial(prepare, asked))

        def report(row: dict[str, Any]) -> None:
            self.console.print(run_line(row, record(self.task.goal)), soft_wrap=True)

        comparison = Comparison(checked, options, agents, report)
        config = self.resolved_config()
        if self.unfinished is not None:
            check_resumable(self.unfinished, config)
        folder = self.open_run(self.unfinished)
        figures = comparison.run(folder)
        for table in comparison_tables(figures):
            self.console.print(table)
        self._report(folder)
        self.close_run(folder, {})

    def predict(self, json: str | None = None, **_: Any) -> None:
        """Print the widths that a trained policy proposes for some budgets."""
        check_file("--json", json)
        budgets: list[float] = self._get(self.config, "budgets")
        check_budgets(budgets)
        episode = self.options.episode.for_one_budget(self.options.measure())
        options = replace(self.options, episode=episode, stages=StageOptions())
        checked = check(self.task, self._budget(macs=min(budgets)), options, Runtime(device=self._device()))
        checked.prepare(self.model)
        trained = train(checked)
        found = record_of(trained, predict(trained, self.model, budgets))
        self.console.print(prediction_table(found))
        if json is not None:
            write_json(json, found)

    def prune(self, widths: str | None = None, share: float | None = None, **_: Any) -> None:
        """Prune to given widths."""
        if widths is None:
            raise UserError("prune needs --widths FILE: output of predict --json, a result.json, or your own JSON")
        given = read_widths(widths, share)
        graph = self.task.trace()
        chosen = as_widths(graph, given)
        checked = self._checked(self.phase_trainer, budget_of(graph, chosen))
        folder = self.open_run()
        self._show(deliver_widths(train(checked, folder), chosen, folder), folder)

    def _quiet(self) -> Callable[..., Trainer]:
        """Return a factory of trainers without output, for the many networks of a comparison."""
        settings = self._get(self.config_init, "trainer")
        return partial(quiet_trainer, **{name: settings[name] for name in ("accelerator", "devices", "precision")})

    def inspect(self, json: str | None = None, figure: str | None = None, **_: Any) -> None:
        """Show prunable groups, frozen groups and costs."""
        check_file("--json", json)
        check_file("--figure", figure)
        if figure is not None:
            checked_suffix(figure)
        graph = self.task.trace()
        own = self._get(self.config, "budget")["limits"] or {}
        found = inspect(graph, [*graph.metrics, *(metric for metric in own if metric not in METRICS)])
        for table in inspection_tables(found):
            self.console.print(table)
        if json is not None:
            write_json(json, found)
        if figure is not None:
            views = hierarchical_graph(graph), simplified_graph(graph)
            with os_errors(Path(figure)):
                graph_figure(*views, self.task.name).savefig(figure)


def _save_dense(network: nn.Module, folder: RunFolder) -> None:
    with replacing(folder.weights(DENSE), checksum=True) as partial:
        save_weights(network, partial)


def _logged(row: Mapping[str, Any]) -> dict[str, float]:
    """Return the figures of a pruned network to log at the end of a run."""
    costs = cost_names(row)
    names = {*costs, *(f"{name}{RATIO}" for name in costs), *LOGGED}
    return {name: value for name, value in row.items() if name in names or name.endswith("_search")}
