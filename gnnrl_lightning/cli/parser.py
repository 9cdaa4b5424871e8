"""The parser of a subcommand."""

from __future__ import annotations

from typing import Any

import yaml
from lightning.pytorch.cli import LightningArgumentParser

OWN = ("network", "objective")
"""Keys whose `class_path` we resolve ourselves: a short name is a network or objective of ours."""


class CompressionParser(LightningArgumentParser):
    """Lightning's parser, which also prints networks and objectives that are given by short names."""

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
