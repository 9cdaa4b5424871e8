"""The run of a subcommand: folder, loggers, trainers, processes and the end by a signal."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import torch
import wandb
import yaml
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher

from gnnrl_lightning.cli.arguments import ArgumentsCLI
from gnnrl_lightning.cli.ending import INVALID, Ending, ending
from gnnrl_lightning.cli.resuming import OPTION, is_finished, with_subcommand
from gnnrl_lightning.cli.signals import OwnHandler, forward_signals, stop_signal
from gnnrl_lightning.cli.subcommands import PROGRAM
from gnnrl_lightning.cli.trainer import OF_SEARCH, as_given
from gnnrl_lightning.errors import UserError, first_line, one_line
from gnnrl_lightning.files import replacing
from gnnrl_lightning.job.searched import Searched
from gnnrl_lightning.job.searching import Searching, search
from gnnrl_lightning.job.trained import Trained
from gnnrl_lightning.processes import from_first, of_all, rank
from gnnrl_lightning.report.loggers import WandbAxes
from gnnrl_lightning.report.metrics import MetricsFile
from gnnrl_lightning.report.phases import PhaseLogger
from gnnrl_lightning.report.progress import SearchProgress, TrainingProgress
from gnnrl_lightning.report.table import print_result
from gnnrl_lightning.rl.environments import AGENT
from gnnrl_lightning.rl.learners import GraphLearner
from gnnrl_lightning.runs.folder import RunFolder
from gnnrl_lightning.runs.integrity import read_result
from gnnrl_lightning.training.train import quiet_trainer


class RunningCLI(ArgumentsCLI):
    """The part that all subcommands with a run folder share."""

    folder: RunFolder | None = None
    """The folder of the run, once `open_run` has opened it."""

    def before_instantiate_classes(self) -> None:
        """Show the result if the run to resume is finished."""
        if self.resumed is not None and is_finished(self.resumed):
            if self.resumed.result.exists():
                print_result(read_result(self.resumed), self.console)
            self.console.print(f"{self.resumed.path} is finished: there is nothing to resume", soft_wrap=True)
            raise SystemExit(0)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Create the trainer of the search, with our progress bar and log; its epochs are iterations."""
        settings = self._get(self.config_init, "trainer")
        if settings["logger"] in (None, True):
            kwargs["logger"] = False  # metrics.csv in the run's folder, once there is one
        if self.subcommand == "fit":
            callbacks = settings["callbacks"] or []
            callbacks = callbacks if isinstance(callbacks, list) else [callbacks]
            # Those of the user's callbacks alone: Lightning would add its own.
            kwargs["enable_checkpointing"] = any(isinstance(each, Checkpoint) for each in callbacks)
        try:
            return super().instantiate_trainer(**kwargs)
        except UserError:
            raise
        except Exception as error:  # Lightning's own checks, and loggers and callbacks of the user's
            raise UserError(
                f"trainer with {as_given(settings)} is refused ({one_line(error).rstrip('.')}): change what it names"
            ) from error

    def open_run(self, earlier: RunFolder | None = None) -> RunFolder:
        """Create the run's folder after all input has been checked, and start logging.

        Args:
            earlier: Folder of an interrupted run to resume instead.
        """
        self._join_processes()
        configured, config = self.trainer.loggers, self.resolved_config()
        folder = self.folder = from_first(self._first_opens(earlier, config) if rank() == 0 else None)
        assert folder is not None
        axes = [WandbAxes(logger) for logger in configured if isinstance(logger, WandbLogger)]
        self.trainer.loggers = [MetricsFile(folder.metrics), *axes, *configured]
        for callback in self.trainer.checkpoint_callbacks:
            if isinstance(callback, ModelCheckpoint) and callback.dirpath is None:
                callback.dirpath = str(folder.checkpoints / AGENT)
        for logger in configured:
            logger.log_hyperparams(yaml.safe_load(config))
        # Lightning's own checkpoint of a job that SLURM requeues is not used: a run resumes from its own files.
        if rank() == 0:
            shutil.rmtree(self._requeued, ignore_errors=True)
        self.trainer._default_root_dir = self._requeued  # pyright: ignore[reportAttributeAccessIssue]
        return folder

    def _join_processes(self) -> None:
        """Start the trainer's processes, unless torchrun or SLURM has started them, and connect them.

        Every process runs the same command line and reaches this point. Later trainers reuse the connection.
        """
        if self.processes == 1:
            return
        strategy = self.trainer.strategy
        if strategy.launcher is not None:
            strategy.launcher.launch(lambda: None)
            forward_signals(self._stop_others)
        strategy.setup_environment()
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        torch.set_num_threads(self.run.threads or max(1, cores // self.trainer.num_devices))
        if len(set(of_all(self.model.seed))) > 1:
            raise UserError("each process has drawn its own seed: set seed_everything to a number")

    @property
    def _requeued(self) -> str:
        assert self.folder is not None  # loggers and trainers come after `open_run`
        return str(self.folder.checkpoints / "slurm")

    def _first_opens(self, earlier: RunFolder | None, config: str) -> RunFolder:
        """Create the run's folder, unless it is an earlier run's, and note its W&B runs there."""
        ids = [_wandb_id(logger) for logger in self.trainer.loggers if isinstance(logger, WandbLogger)]
        folder = earlier or self._create_run(config, next(iter(ids), None))
        if ids:
            with replacing(folder.wandb) as partial_file:
                partial_file.write_text("\n".join(ids) + "\n", encoding="utf-8")
        return folder

    def _create_run(self, config: str, wandb_id: str | None) -> RunFolder:
        folder = RunFolder.create(
            self.run.root,
            self.run.name,
            experiment=self.run.experiment,
            overwrite=self.overwrite,
            wandb_id=wandb_id,
            held=self.held,
        )
        folder.write_config(with_subcommand(config, str(self.subcommand)))
        return folder

    def resolved_config(self) -> str:
        """Return the configuration with all defaults, as YAML."""
        resolved = self.config[str(self.subcommand)].clone()
        resolved.overwrite = False  # only for this run: repeating it must not delete it
        resolved.pop("resume", None)
        return self._parser(self.subcommand).dump(resolved, skip_unset=False)  # null may differ from the default

    def close_run(self, folder: RunFolder, figures: dict[str, float]) -> None:
        """Log the final figures, close the loggers, and print the folder of the run."""
        for logger in self.trainer.loggers:
            logger.log_metrics(figures)
        self._let_go("success", 0)
        see = f"; see {folder.report}" if folder.report.is_file() else ""
        self.console.print(f"written to {folder.path}{see}", soft_wrap=True)

    def _let_go(self, status: str, code: int) -> None:
        for logger in self.trainer.loggers:
            logger.finalize(status)
            if isinstance(logger, WandbLogger):
                logger.experiment.finish(exit_code=code)

    def _run_subcommand(self, subcommand: str) -> None:
        """Run the subcommand; if a signal or the system ends it, close the loggers and print how to resume."""
        try:
            super()._run_subcommand(subcommand)
        except BaseException as error:
            self._stop_others()
            signum = stop_signal(error)
            end = ending(error) if signum is None else Ending("stopped", 128 + signum)
            if end is None or end.code == INVALID:
                raise
            with suppress(OSError):  # of a full disk
                self._let_go("failed", end.code)
            if rank() == 0:
                print(f"{end.line}{self._resume_hint()}", file=sys.stderr)
            raise SystemExit(end.code) from error

    def _resume_hint(self) -> str:
        if self.folder is None or not self.folder.config.is_file():
            return ""
        if self.subcommand == "compare":
            return f"; resume with the same command and --run.name {shlex.quote(self.folder.path.name)}"
        if not self.asked.resumes:
            return ""
        folder = shlex.quote(str(self.folder.path))
        return f"; resume with: {PROGRAM} {self.subcommand} {OPTION} {folder}"

    def _stop_others(self) -> None:
        """Stop the processes that this one has started, without Lightning's observer, which would kill this one too."""
        launcher = self.trainer.strategy.launcher
        if isinstance(launcher, _SubprocessScriptLauncher):
            launcher.kill(signal.SIGTERM)
            launcher.procs.clear()

    def phase_trainer(self, phase: str) -> Callable[..., Trainer]:
        """Return the factory of a training phase's trainer: on the search's device, with its own progress bar."""
        callbacks = [TrainingProgress(f"{phase} network"), OwnHandler()]
        return partial(quiet_trainer, **self.phase_settings(phase), callbacks=callbacks, log_every_n_steps=1)

    def phase_settings(self, phase: str) -> dict[str, Any]:
        """Return the settings of a phase's trainer: its device, and loggers that put the phase before each metric."""
        settings = self._get(self.config_init, "trainer")
        names = ("accelerator", "devices", "precision")
        if self.processes > 1:
            names += ("strategy", "num_nodes", "sync_batchnorm")
        return {
            **{name: settings[name] for name in names},
            "logger": [PhaseLogger(logger, phase) for logger in self.trainer.loggers],
            "default_root_dir": self._requeued,
        }

    def search(self, trained: Trained, agent: GraphLearner, folder: RunFolder, name: str) -> Searched:
        """Search in a stage: in the last one, which has no name, with the configured trainer, else with another."""
        settings = self._get(self.config_init, "trainer")
        limit, given = settings["max_epochs"], {key: settings[key] for key in OF_SEARCH if key != "max_epochs"}

        def trainer(max_epochs: int, callbacks: Sequence[Callback], **flags: Any) -> Trainer:
            epochs = max_epochs if limit is None else min(limit, max_epochs)
            if name:
                flags |= {**given, **self.phase_settings(name), "max_epochs": epochs, "callbacks": callbacks}
                return quiet_trainer(**flags)
            self.trainer.fit_loop.max_epochs = epochs
            self.trainer.callbacks.extend(callbacks)  # pyright: ignore[reportAttributeAccessIssue]
            return self.trainer

        def watched(searching: Searching) -> list[Callback]:
            return [SearchProgress(searching.status, self.options.search.evaluations, name or None), OwnHandler()]

        return search(trained, agent, folder, trainer, watched)


def _wandb_id(logger: WandbLogger) -> str:
    """Start the run of a W&B logger and return its id."""
    if logger._wandb_init.get("anonymous") is None:
        logger._wandb_init.pop("anonymous", None)  # W&B warns of it, even if it is null
    try:
        return str(logger.experiment.id)
    except wandb.Error as error:
        raise UserError(
            f"W&B refuses: {first_line(error)}: log in (wandb login), or set trainer.logger.init_args.offline to true"
        ) from error
