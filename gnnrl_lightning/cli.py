"""The command line: `python -m gnnrl_lightning {fit,pretrain,finetune,validate,test,inspect}`."""

from __future__ import annotations

import json as json_format
import logging
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, WandbLogger
from rich.console import Console
from torch import nn

from gnnrl_lightning.data import ImageData
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.finetune import TrainingOptions, quiet_trainer
from gnnrl_lightning.graph.budget import Budget
from gnnrl_lightning.graph.views import hierarchical_graph, simplified_graph
from gnnrl_lightning.module import GNNRL
from gnnrl_lightning.networks.spec import NetworkSpec
from gnnrl_lightning.pipeline import DENSE_WEIGHTS, LATENCY_BATCH, Compression, SearchOptions
from gnnrl_lightning.report.graph_figure import checked_suffix, graph_figure
from gnnrl_lightning.report.phases import PhaseLogger
from gnnrl_lightning.report.progress import SearchProgress, TrainingProgress
from gnnrl_lightning.report.table import inspection_tables, print_result
from gnnrl_lightning.runs import RunFolder, RunOptions
from gnnrl_lightning.task import Task, finetune_artifact, inspect, save_weights

DESCRIPTION = "Make a trained network physically smaller, within a budget."
NETWORK_HELP = "Class or function that makes the network; without a dot, one of gnnrl_lightning.networks."
ARTIFACT_HELP = "Folder of a pruned network, which finetune, validate and test take instead of the dense one."
WRITING = ("fit", "pretrain", "finetune")  # the subcommands that make a run
# The subcommands that read trained weights, and what they do with them.
RESTORING = {"finetune": "fine-tune", "validate": "validate", "test": "test"}
# Figures of the pruned network for the loggers: none of the test images, which no sweep may choose by.
LOGGED = ("macs", "params", "macs_ratio", "params_ratio", "top1_search", "latency_ms")


class SubcommandTrainer(Trainer):
    """A trainer with a method for each subcommand: LightningCLI takes names, help and options from them."""

    def fit(self, *args: Any, **kwargs: Any) -> None:
        """Search, prune, fine-tune, test once and save: the whole job."""
        super().fit(*args, **kwargs)

    def pretrain(self) -> None:
        """Train the dense network and save its weights."""

    def finetune(self) -> None:
        """Train a pruned network (--artifact) or the dense one (--checkpoint) further and save it."""

    def validate(self) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Print the top-1 accuracy on the search split, of the network or of a pruned one (--artifact)."""

    def test(self) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Print the top-1 accuracy on the test images, of the network or of a pruned one (--artifact)."""

    def inspect(self, json: str | None = None, figure: str | None = None) -> None:
        """Show what can be pruned: channel groups, frozen groups with reasons, cost, smallest reachable cost.

        Args:
            json: File to write the same to, as JSON.
            figure: File to draw the computational graph to: .png, .svg or .pdf.
        """


class CompressionCLI(LightningCLI):
    """The command line: arguments, the run folder, loggers and progress around `pipeline`."""

    def __init__(self, args: list[str] | None = None) -> None:
        self.console = Console()
        super().__init__(
            GNNRL,
            ImageData,
            save_config_callback=None,
            trainer_class=SubcommandTrainer,
            # One process: every evaluation is made by one agent. Progress bars and summary are our own.
            trainer_defaults={
                "devices": 1,
                "enable_progress_bar": False,
                "enable_model_summary": False,
                "num_sanity_val_steps": 0,
                "log_every_n_steps": 1,
            },
            seed_everything_default=0,
            subclass_mode_data=True,
            parser_kwargs={"description": DESCRIPTION},
            args=args,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """The subcommands, each with the arguments of its method that are not offered."""
        fit = {"model", "train_dataloaders", "val_dataloaders", "datamodule", "ckpt_path", "weights_only"}
        others = ("pretrain", "finetune", "validate", "test", "inspect")
        return {"fit": fit} | {name: set() for name in others}

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Arguments of trainer, agent and data."""
        parser.add_lightning_class_args(self.trainer_class, "trainer")
        parser.set_defaults({f"trainer.{name}": value for name, value in self.trainer_defaults.items()})
        parser.add_class_arguments(GNNRL, "model", skip={"env", "seed"})
        parser.add_lightning_class_args(ImageData, "data", subclass_mode=True)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Arguments of the job."""
        # Not the dataclass: jsonargparse would take class_path for the dataclass's own.
        parser.add_argument("--network.class_path", type=str, required=True, help=NETWORK_HELP)
        parser.add_argument("--network.init_args", type=dict[str, Any], default={}, help="Its arguments by name.")
        parser.add_argument("--checkpoint", type=str | None, help="File with the network's weights; null trains.")
        parser.add_argument("--artifact", type=str | None, help=ARTIFACT_HELP)
        # Made by the subcommands that need one: an empty budget is an error.
        parser.add_class_arguments(Budget, "budget", instantiate=False)
        parser.add_class_arguments(SearchOptions, "search")
        parser.add_class_arguments(TrainingOptions, "pretraining")
        parser.add_class_arguments(TrainingOptions, "finetuning")
        parser.add_class_arguments(RunOptions, "run")
        parser.add_argument("--overwrite", action="store_true", help="Replace an existing run of the same name.")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse `args`, or else the command line."""
        self.config = parser.parse_args(args)
        _check(self.config[self.config["subcommand"]])

    def instantiate_classes(self) -> None:
        """Make everything that the configuration describes; nothing is written."""
        self.config_init = self.parser.instantiate(self.config)
        self._check_inputs()
        self.run: RunOptions = self._get(self.config_init, "run")
        if self.run.threads is not None:
            torch.set_num_threads(self.run.threads)
        if self.subcommand in WRITING:
            given = (self._get(self.config, name) for name in ("checkpoint", "artifact"))
            RunFolder.check(self.run.root, self.run.name, self.overwrite, [path for path in given if path is not None])
        self.model: GNNRL = self._get(self.config_init, "model")
        self.model.seed = self._get(self.config, "seed_everything")
        self.datamodule: ImageData = self._get(self.config_init, "data")
        self.trainer = self.instantiate_trainer()

    def _check_inputs(self) -> None:
        """Refuse weights that the subcommand would not read, and a comparison that needs some."""
        weights, pruned = (self._get(self.config, name) for name in ("checkpoint", "artifact"))
        if pruned is not None and self.subcommand not in RESTORING:
            raise UserError(f"{self.subcommand} reads no --artifact: that is for {', '.join(RESTORING)}")
        if pruned is not None and weights is not None:
            raise UserError("--artifact and --checkpoint exclude each other: set one of them to null")
        if pruned is None and weights is None and self.subcommand in RESTORING:
            raise UserError(f"nothing to {RESTORING[self.subcommand]}: give --artifact FOLDER or --checkpoint FILE")

    @property
    def overwrite(self) -> bool:
        """Whether an existing run may be replaced."""
        return self._get(self.config, "overwrite")

    @property
    def task(self) -> Task:
        """The network and its images."""
        network = NetworkSpec(**self._get(self.config, "network").as_dict())
        return Task(network, self.datamodule, self._get(self.config, "checkpoint"), self.model.seed)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The search's trainer: as many epochs as there are evaluations to spend, our progress bar and log."""
        settings = self._get(self.config_init, "trainer")
        if settings["logger"] in (None, True):
            kwargs["logger"] = False  # metrics.csv in the run's folder, once there is one
        if self.subcommand == "fit":
            search: SearchOptions = self._get(self.config_init, "search")
            episodes = self.model.episodes_per_iteration
            limit = settings["max_epochs"]
            iterations = min(search.iterations(episodes), search.evaluations if limit is None else limit)
            total = search.evaluations_of(iterations, episodes)
            callbacks = settings["callbacks"] or []
            callbacks = callbacks if isinstance(callbacks, list) else [callbacks]
            kwargs["max_epochs"] = iterations
            kwargs["callbacks"] = [*callbacks, SearchProgress(lambda: self.compression.status(), total)]
        try:
            return super().instantiate_trainer(**kwargs)
        except (MisconfigurationException, ImportError, ValueError) as error:
            raise UserError(f"trainer: {' '.join(str(error).split())}") from error

    def open_run(self) -> RunFolder:
        """Make the run's folder with configuration and loggers, once all input has been checked."""
        configured = self.trainer.loggers
        wandb_ids = [str(logger.experiment.id) for logger in configured if isinstance(logger, WandbLogger)]
        folder = RunFolder.create(
            self.run.root,
            self.run.name,
            experiment=self.run.experiment,
            overwrite=self.overwrite,
            wandb_id=next(iter(wandb_ids), None),
        )
        metrics = CSVLogger(folder.path, name="", version="")
        metrics.experiment  # noqa: B018  (claims the folder while it is empty)
        self.trainer.loggers = [metrics, *configured]
        for callback in self.trainer.checkpoint_callbacks:
            if isinstance(callback, ModelCheckpoint) and callback.dirpath is None:
                callback.dirpath = str(folder.checkpoints / "agent")
        resolved = self.config[str(self.subcommand)].clone()
        resolved.overwrite = False  # said of this run only: repeating it must not delete it
        config = self._parser(self.subcommand).dump(resolved)
        folder.config.write_text(config, encoding="utf-8")
        for logger in configured:
            logger.log_hyperparams(yaml.safe_load(config))
        return folder

    def close_run(self, folder: RunFolder, figures: dict[str, float]) -> None:
        """Log the final figures, let the loggers go, and say where the run is."""
        for logger in self.trainer.loggers:
            logger.log_metrics(figures)
            logger.finalize("success")
            if isinstance(logger, WandbLogger):
                logger.experiment.finish()
        self.console.print(f"written to {folder.path}")

    def phase_trainer(self, phase: str) -> Callable[..., Trainer]:
        """What makes the trainer of a training phase: on the search's device, with progress of its own."""
        settings = self._get(self.config_init, "trainer")
        return partial(
            quiet_trainer,
            accelerator=settings["accelerator"],
            devices=settings["devices"],
            precision=settings["precision"],
            logger=[PhaseLogger(logger, phase) for logger in self.trainer.loggers],
            callbacks=[TrainingProgress(f"{phase} network")],
            log_every_n_steps=1,
        )

    def before_fit(self) -> None:
        """Check everything, open the run, train or load the dense network, score the starting candidates."""
        self.compression = Compression(
            self.task,
            Budget(**self._get(self.config, "budget").as_dict()),
            self._get(self.config_init, "search"),
            self._get(self.config_init, "pretraining"),
            self._get(self.config_init, "finetuning"),
            self.phase_trainer,
        )
        self.model.env = self.compression.env
        try:
            self.model.configure_model()
        except Exception as error:  # the user's own policy may raise anything
            raise UserError(f"model.actor_critic cannot be made: {' '.join(str(error).split())}") from error
        self.folder = self.open_run()
        self.compression.train_dense(self.folder)
        self.model.env = self.compression.start(self.folder)

    def fit(self, **_: Any) -> None:
        """Search."""
        self.trainer.fit(self.model)

    def after_fit(self) -> None:
        """Prune, fine-tune, test once, save, show."""
        result = self.compression.deliver(self.folder)
        figures = {f"result/{name}": value for name, value in result["pruned"].items() if name in LOGGED}
        print_result(result, LATENCY_BATCH, self.console)
        self.close_run(self.folder, figures)

    def pretrain(self, **_: Any) -> None:
        """Train the dense network and save its weights."""
        network = self.task.build()
        folder = self.open_run()
        self.task.train(network, self._get(self.config_init, "pretraining"), self.phase_trainer("dense"))
        save_weights(network, folder.checkpoints / DENSE_WEIGHTS)
        self._close_training(folder, self.task.top1(network, self.datamodule.search))

    def finetune(self, **_: Any) -> None:
        """Train a pruned network or the dense one further and save it."""
        options = self._get(self.config_init, "finetuning")
        pruned = self._get(self.config, "artifact")
        if pruned is None:
            network = self.task.build()
            folder = self.open_run()
            self.task.train(network, options, self.phase_trainer("dense"))
            save_weights(network, folder.checkpoints / DENSE_WEIGHTS)
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

    def inspect(self, json: str | None = None, figure: str | None = None, **_: Any) -> None:
        """Show what can be pruned."""
        for option, path in (("--json", json), ("--figure", figure)):
            if path is not None and not Path(path).absolute().parent.is_dir():
                raise UserError(f"{option} {path}: there is no folder {Path(path).parent}")
        if figure is not None:
            checked_suffix(figure)
        graph = self.task.trace()
        found = inspect(graph)
        for table in inspection_tables(found):
            self.console.print(table)
        if json is not None:
            Path(json).write_text(json_format.dumps(found, indent=2) + "\n", encoding="utf-8")
        if figure is not None:
            name = str(self._get(self.config, "network")["class_path"]).rpartition(".")[2]
            graph_figure(hierarchical_graph(graph), simplified_graph(graph), name).savefig(figure)


def main(args: list[str] | None = None) -> None:
    """Run the command line.

    Args:
        args: Arguments; None for those of the process.

    Raises:
        SystemExit: With code 2 and one line on standard error, if the input is wrong.
    """
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        CompressionCLI(args)
    except Exception as error:
        cause = _user_error(error)
        if cause is None:
            raise
        print(f"error: {cause}", file=sys.stderr)
        raise SystemExit(2) from error


def _user_error(error: BaseException | None) -> UserError | None:
    """The user's error, also where jsonargparse has wrapped it in its own."""
    while error is not None and not isinstance(error, UserError):
        error = error.__cause__ or error.__context__
    return error


def _check(config: Any) -> None:
    """Refuse a seed and settings of the trainer that Lightning would refuse late, or not at all."""
    seed, trainer = config["seed_everything"], config["trainer"]
    if not isinstance(seed, bool) and not 0 <= seed < 2**32:
        raise UserError(f"seed_everything is {seed}: expected 0 to {2**32 - 1}")
    if trainer["devices"] == "auto":
        trainer["devices"] = 1
    if str(trainer["devices"]) != "1" or trainer["num_nodes"] != 1:
        given = f"trainer.devices is {trainer['devices']} and trainer.num_nodes is {trainer['num_nodes']}"
        raise UserError(f"{given}: expected 1, one process makes all evaluations")
    if trainer["max_epochs"] is not None and trainer["max_epochs"] < 1:
        raise UserError(f"trainer.max_epochs is {trainer['max_epochs']}: expected at least 1, or null")
