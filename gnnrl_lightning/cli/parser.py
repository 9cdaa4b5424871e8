"""The parser of a subcommand."""

from __future__ import annotations

from typing import Any

import yaml
from jsonargparse import ActionConfigFile, ArgumentParser  # pyright: ignore[reportPrivateImportUsage]
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.utilities import LightningEnum

from gnnrl_lightning.cli.helping import explained
from gnnrl_lightning.cli.own_classes import KEYS
from gnnrl_lightning.rl.learners import GraphLearner

OWN = ("network", "objective")
"""Keys whose `class_path` we resolve ourselves: a short name is a network or objective of ours."""

USUAL_LEARNER = "gnnrl_lightning.GNNRL"
"""Import path of the learner whose arguments need no `class_path`."""

PASSED = ("env", "proxy", "seed")
"""Arguments of a learner that the command line passes itself."""

LEARNER_HELP = "What trains the policy: GNNRL (PPO), DDPG, or your own subclass of GraphLearner."


# Defaults of Lightning's callbacks (that of Timer's interval) may be members of its enumerations.
yaml.SafeDumper.add_multi_representer(LightningEnum, lambda dumper, value: dumper.represent_str(value.value))


class ConfigFile(ActionConfigFile):
    """A configuration file, whose objective and optimisers replace those of earlier files."""

    @staticmethod
    def apply_config(parser: Any, cfg: Any, dest: str, value: Any) -> None:
        """Read a file into the configuration `cfg`.

        jsonargparse would import the earlier class to compare its arguments with the later ones; it may be a name.
        """
        earlier = {key: cfg.pop(key) for key in KEYS if isinstance(cfg.get(key), dict)}
        ActionConfigFile.apply_config(parser, cfg, dest, value)
        for key, before in earlier.items():
            if key not in cfg:
                cfg[key] = before


class CompressionParser(LightningArgumentParser):
    """Lightning's parser, which also prints networks and objectives that are given by short names, and our help."""

    def add_argument(self, *args: Any, **kwargs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Add an argument; configuration files are read by `ConfigFile`."""
        if kwargs.get("action") is ActionConfigFile:
            kwargs["action"] = ConfigFile
        return super().add_argument(*args, **kwargs)

    def format_help(self) -> str:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return the help, with what the options mean here."""
        with explained(self):
            return super().format_help()

    def dump(self, cfg: Any, *args: Any, skip_default: bool = False, **kwargs: Any) -> str:
        """Return the configuration as YAML.

        Args:
            cfg: The configuration.
            *args: As jsonargparse's.
            skip_default: Whether to leave out what has its default. jsonargparse would import the classes for that.
            **kwargs: As jsonargparse's.
        """
        if not skip_default:
            return super().dump(cfg, *args, **kwargs)
        rest, own = cfg.clone(), {}
        for name in OWN:
            value = rest.pop(name, None)
            value = value.as_dict() if hasattr(value, "as_dict") else value
            if value is not None and value != self.get_defaults(skip_validation=True).get(name):
                own[name] = value
        text = super().dump(rest, *args, skip_default=True, **kwargs | {"skip_validation": True})
        return ("" if text.strip() == "{}" else text) + (yaml.safe_dump(own, sort_keys=False) if own else "")


def add_learner(parser: ArgumentParser, name: str) -> None:
    """Add a learner under a key: `class_path` and `init_args` of a subclass of GraphLearner."""
    # Users' classes need no type hints.
    parser.add_subclass_arguments(
        GraphLearner, name, skip=set(PASSED), fail_untyped=False, required=True, help=LEARNER_HELP
    )
