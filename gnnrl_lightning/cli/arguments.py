"""The command line's arguments, and the checks made before anything is written."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NoReturn, get_type_hints

import torch
from jsonargparse import Namespace, set_parsing_settings
from lightning.pytorch import LightningDataModule
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from rich.console import Console

from gnnrl_lightning.cli.comparing import policies_of
from gnnrl_lightning.cli.ending import reading_user_code
from gnnrl_lightning.cli.experiments import with_experiments
from gnnrl_lightning.cli.front import DESCRIPTION
from gnnrl_lightning.cli.helping import (
    ARTIFACT_HELP,
    BUDGETS_HELP,
    LIMITS_HELP,
    MIN_WIDTH_HELP,
    MULTIPLE_HELP,
    NETWORK_HELP,
    OBJECTIVE_HELP,
    arrange,
    limit_help,
)
from gnnrl_lightning.cli.own_classes import with_whole_values
from gnnrl_lightning.cli.parser import USUAL_LEARNER, CompressionParser, add_learner
from gnnrl_lightning.cli.resuming import is_finished, refuse_unfinished, resumed_run, same_wandb_runs
from gnnrl_lightning.cli.subcommands import CONFIGURED, PROGRAM, Subcommand
from gnnrl_lightning.cli.trainer import SubcommandTrainer
from gnnrl_lightning.cli.values import check_values
from gnnrl_lightning.cli.wording import refusal
from gnnrl_lightning.cost.metrics import METRICS
from gnnrl_lightning.data import ExampleData
from gnnrl_lightning.data.from_data_module import as_example_data
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.job.compare_options import CompareOptions
from gnnrl_lightning.job.group_options import GroupOptions
from gnnrl_lightning.job.options import Options
from gnnrl_lightning.job.task import Task
from gnnrl_lightning.networks.spec import NetworkSpec
from gnnrl_lightning.options import AUTO
from gnnrl_lightning.processes import rank
from gnnrl_lightning.rl.learners import GraphLearner
from gnnrl_lightning.rl.learners.own import check_made
from gnnrl_lightning.runs.folder import RunFolder, RunOptions
from gnnrl_lightning.runs.integrity import check_files
from gnnrl_lightning.runs.lock import locked

STRATEGIES = ("auto", "ddp", "ddp_find_unused_parameters_true", "ddp_find_unused_parameters_false")

# `agents_of` creates the agents of compare.variants one by one; jsonargparse must not instantiate their classes.
set_parsing_settings(instantiate_subclass_spec_in_any=False)


class ArgumentsCLI(LightningCLI):
    """Parses and checks the arguments of all subcommands and creates the configured objects for `CompressionCLI`."""

    def __init__(self, args: list[str] | None = None, held: ExitStack | None = None) -> None:
        self.held = held or ExitStack()  # locks, until the program ends
        self.console = Console(quiet=rank() > 0)
        self.processes = 1
        # Building the parser of a subcommand is slow, so only the requested one is built.
        asked = (sys.argv[1:] if args is None else args)[:1]
        self.parsed = {name: row for name, row in CONFIGURED.items() if name in asked} or CONFIGURED
        super().__init__(
            GraphLearner,
            LightningDataModule,
            save_config_callback=None,
            trainer_class=SubcommandTrainer,
            # One process by default. Progress bars and summary are our own.
            trainer_defaults={
                "devices": 1,
                "enable_progress_bar": False,
                "enable_model_summary": False,
                "num_sanity_val_steps": 0,
                "log_every_n_steps": 1,
            },
            seed_everything_default=0,
            subclass_mode_model=True,
            subclass_mode_data=True,
            parser_class=CompressionParser,
            parser_kwargs={"description": DESCRIPTION, "prog": PROGRAM},
            args=args,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
        )

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """Return a parser whose errors are one line."""
        parser = super().init_parser(**kwargs, allow_abbrev=False)
        parser.error = self._refuse
        return parser

    def _refuse(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise a parser's error as one line, without usage."""
        keys = [action.dest for parser in self._subcommand_parsers.values() for action in parser._actions]
        raise UserError(refusal(message, keys, [*self.parsed])) from ex

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        arrange(parser, subcommand, self._subcommand_method_arguments[subcommand])
        return parser

    def subcommands(self) -> dict[str, set[str]]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return the parsed subcommands, each with the arguments of its method that are not options."""
        return {name: set(subcommand.hidden) for name, subcommand in self.parsed.items()}

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the arguments of trainer, learner and data."""
        parser.add_lightning_class_args(self.trainer_class, "trainer")
        parser.set_defaults({f"trainer.{name}": value for name, value in self.trainer_defaults.items()})
        add_learner(parser, "model")
        parser.set_defaults({"model": {"class_path": USUAL_LEARNER}})
        parser.add_lightning_class_args(LightningDataModule, "data", subclass_mode=True)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the arguments of the job."""
        # Not the dataclass: jsonargparse would read class_path as the class of the dataclass itself.
        parser.add_argument("--network.class_path", type=str, required=True, help=NETWORK_HELP)
        parser.add_argument("--network.init_args", type=dict[str, Any], default={}, help="Its arguments by name.")
        parser.add_argument("--objective", type=str | dict[str, Any], default="classification", help=OBJECTIVE_HELP)
        parser.add_argument(
            "--checkpoint", type=str | None, help="File with the network's weights; null: fit trains it."
        )
        parser.add_argument("--artifact", type=str | None, help=ARTIFACT_HELP)
        parser.add_argument("--budgets", type=float, nargs="+", help=BUDGETS_HELP)
        _add_budget(parser)
        parser.add_class_arguments(GroupOptions, "groups")
        for name, section in get_type_hints(Options).items():
            parser.add_class_arguments(section, name)
        parser.add_class_arguments(CompareOptions, "compare")
        parser.add_class_arguments(RunOptions, "run")
        parser.add_argument("--overwrite", action="store_true", help="Replace an existing run of the same name.")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse `args`, or the command line if there are none."""
        self.started_in_python = args is not None
        given = sys.argv[1:] if args is None else args
        self.resumed = resumed_run(given)
        if self.resumed is not None:
            if not is_finished(self.resumed):
                self.hold(self.resumed)
            given = [given[0], "--config", str(self.resumed.config)]
        with reading_user_code():
            given = with_experiments(given)
            if given and given[0] in self.parsed:  # else the parser says so
                given = with_whole_values(given, lambda rest, key: self._asked(parser, rest, key))
                self._choose_learner(parser, given)
            self.config = parser.parse_args(given)
        subcommand = self.config["subcommand"]
        config = self.config[subcommand]
        check_values(config, subcommand)
        if self.resumed is not None and self.resumed.wandb.is_file():
            same_wandb_runs(config.trainer, self.resumed.wandb.read_text(encoding="utf-8").split())

    def _choose_learner(self, parser: LightningArgumentParser, given: Sequence[str]) -> None:
        """Give `model` the defaults of the class that is asked for, where it is not the usual one.

        Otherwise jsonargparse would keep the values of the usual class for all arguments that both have.
        """
        asked = self._asked(parser, given, "model")
        self._subcommand_parsers[given[0]].set_defaults({"model": {"class_path": asked.class_path}})

    def _asked(self, parser: LightningArgumentParser, given: Sequence[str], key: str) -> Any:
        """Return the value of a key without the defaults of its arguments; where none is given, its default."""
        quiet = [each for each in given[1:] if not each.startswith("--print_config")]
        asked = parser.parse_args([given[0], "--model", USUAL_LEARNER, *quiet], defaults=False)[given[0]]
        return asked[key] if key in asked else self._subcommand_parsers[given[0]].get_default(key)

    def hold(self, folder: RunFolder) -> None:
        """Lock the folder of an interrupted run, and check its files before any is used."""
        if rank() == 0:
            self.held.enter_context(locked(folder.path))
            check_files(folder)

    def instantiate_classes(self) -> None:
        """Create everything in the configuration; nothing is written."""
        with reading_user_code():
            self.config_init = self.parser.instantiate(self.config)
        self._check_inputs()
        self.run: RunOptions = self._get(self.config_init, "run")
        if self.unfinished is not None:
            self.hold(self.unfinished)
        if self.run.threads is not None:
            torch.set_num_threads(self.run.threads)
        if self.asked.writes:
            given = [self._get(self.config, name) for name in ("checkpoint", "artifact")]
            given += policies_of(self._get(self.config, "model"), self._get(self.config_init, "compare").variants)
            if self.unfinished is None and self.resumed is None:
                if self.run.name is not None and not self.overwrite:
                    refuse_unfinished(RunFolder(Path(self.run.root) / self.run.name), str(self.subcommand))
                RunFolder.check(self.run.root, self.run.name, self.overwrite, [path for path in given if path])
        self.model: GraphLearner = self._get(self.config_init, "model")
        check_made(self.model)
        self.model.seed = self._get(self.config, "seed_everything")
        self.datamodule: ExampleData = as_example_data(self._get(self.config_init, "data"))
        self.trainer = self.instantiate_trainer()
        if self.trainer.gradient_clip_val is not None and not self.model.automatic_optimization:
            raise UserError(
                f"trainer.gradient_clip_val is {self.trainer.gradient_clip_val}, which {type(self.model).__name__} "
                "does not read: set it to null, and model.max_grad_norm"
            )
        if self.asked.shared or self.asked.alone:
            self._check_processes()

    def _check_processes(self) -> None:
        """Count the trainer's processes; refuse unsupported numbers and strategies."""
        self.processes = self.trainer.num_devices * self.trainer.num_nodes
        if self.processes == 1:
            return
        name = self._get(self.config, "trainer")["strategy"]
        given = f"trainer.devices and trainer.num_nodes make {self.processes} processes"
        if self.asked.alone:
            raise UserError(f"{given}: {self.subcommand} runs in one, set both to 1")
        if name not in STRATEGIES:
            raise UserError(f"trainer.strategy is {name}, {given}: expected one of {', '.join(STRATEGIES)}")
        environment = getattr(self.trainer.strategy, "cluster_environment", None)
        if self.started_in_python and environment is not None and not environment.creates_processes_externally:
            raise UserError(f"{given}: only the command line starts them, use python -m gnnrl_lightning or torchrun")

    def _check_inputs(self) -> None:
        """Refuse weights that the subcommand does not read, and missing ones that it needs."""
        weights, pruned = (self._get(self.config, name) for name in ("checkpoint", "artifact"))
        if pruned is not None and self.subcommand == "pretrain":
            raise UserError(
                "pretrain reads no --artifact: leave it out, or train the pruned network further by finetune"
            )
        if self.subcommand == "predict":
            needed = {
                "checkpoint": weights or pruned,
                "budgets": self._get(self.config, "budgets"),
                "model.policy_file": policies_of(self._get(self.config, "model"), {}),
            }
            names = [f"--{name}" for name, value in needed.items() if not value]
            if names:
                raise UserError(f"predict needs {', '.join(names)}: a trained network, a trained policy, and budgets")
        if pruned is None and weights is None and self.asked.restores is not None:
            raise UserError(f"nothing to {self.asked.restores}: give --artifact FOLDER or --checkpoint FILE")

    @property
    def asked(self) -> Subcommand:
        """The subcommand."""
        return CONFIGURED[str(self.subcommand)]

    @property
    def overwrite(self) -> bool:
        """Whether an existing run may be replaced."""
        return self._get(self.config, "overwrite")

    @cached_property
    def unfinished(self) -> RunFolder | None:
        """The folder of an earlier comparison of this name, which is resumed; not one that another process begins."""
        if self.subcommand != "compare" or self.overwrite or self.run.name is None:
            return None
        folder = RunFolder(Path(self.run.root) / self.run.name)
        return folder if folder.comparison.is_dir() and folder.config.is_file() else None

    @property
    def task(self) -> Task:
        """The task: network, data and objective."""
        network = NetworkSpec(**self._get(self.config, "network").as_dict())
        weights, pruned = (self._get(self.config, name) for name in ("checkpoint", "artifact"))
        groups, objective = self._get(self.config_init, "groups"), self._get(self.config, "objective")
        objective = objective.as_dict() if isinstance(objective, Namespace) else objective
        return Task(network, self.datamodule, weights, self.model.seed, groups, pruned, objective)

    @property
    def options(self) -> Options:
        """The options of the job, as configured."""
        return Options(**{name: self._get(self.config_init, name) for name in get_type_hints(Options)})


def _add_budget(parser: LightningArgumentParser) -> None:
    """Add the arguments of a budget, one for each metric; the subcommands that need a budget create it."""
    for name in METRICS:
        parser.add_argument(f"--budget.{name}", type=int | float | str | None, help=limit_help(name))
    parser.add_argument("--budget.limits", type=dict[str, int | float | str], default={}, help=LIMITS_HELP)
    multiple = int | Literal["auto"]
    parser.add_argument("--budget.channel_multiple", type=multiple, default=AUTO, help=MULTIPLE_HELP)
    parser.add_argument("--budget.min_width", type=int | None, default=None, help=MIN_WIDTH_HELP)
