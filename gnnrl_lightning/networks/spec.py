"""A network given by the import path of its class, as in the YAML and in the recipe of an artifact."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import nn

from gnnrl_lightning.errors import UserError, one_line, suggestion
from gnnrl_lightning.registry import resolve
from gnnrl_lightning.seeds import seed_generators


@dataclass(frozen=True)
class NetworkSpec:
    """The network to compress.

    Args:
        class_path: Import path of a class or function that returns the network, for example
            `torchvision.models.resnet50`, `timm.create_model` (with `model_name`) or `torch.hub.load` (with
            `repo_or_dir`, `model` and `source`). A name without a dot refers to `gnnrl_lightning.networks`.
        init_args: Its arguments by name.
    """

    class_path: str
    init_args: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Last part of the path."""
        return self.class_path.rpartition(".")[2]

    def build(self, seed: int | None = None) -> nn.Module:
        """Create the network, with newly initialised weights unless the arguments specify others.

        Args:
            seed: Seed of the weights, which leaves the generators as they are; None: draw from the generators.

        Raises:
            UserError: The path does not exist, the arguments are invalid, or the result is not an `nn.Module`.
        """
        make = self._find()
        try:
            inspect.signature(make).bind(**self.init_args)
            with nullcontext() if seed is None else isolate_rng():
                if seed is not None:
                    seed_generators(seed)
                network = make(**self.init_args)
        except Exception as error:  # the user's own constructor may raise anything
            message = f"network {self.class_path} refuses its init_args {self.init_args}: {one_line(error)}"
            raise UserError(message) from error
        if not isinstance(network, nn.Module):
            raise UserError(
                f"{self.class_path} returns a {type(network).__name__}, not a torch.nn.Module: expected a "
                "network's class, or a function that returns one"
            )
        return network

    def check_random(self, network: nn.Module, seed: int) -> None:
        """Refuse a network that is made with trained weights: those that do not depend on the seed.

        Args:
            network: The network, made with a seed.
            seed: The seed.

        Raises:
            UserError: All parameters are the same under another seed.
        """
        ours, theirs = dict(network.named_parameters()), dict(self.build(seed + 1).named_parameters())
        if (
            ours
            and ours.keys() == theirs.keys()
            and all(torch.equal(each, theirs[name]) for name, each in ours.items())
        ):
            raise UserError(
                f"{self.class_path} makes the same weights whatever the seed, so they are trained already, or drawn by "
                "a seed of its own: set pretraining.epochs to 0 to prune the network as it is; or train it with "
                "pretrain, and give the checkpoint"
            )

    def _find(self) -> Any:
        path = self.class_path
        if not isinstance(path, str) or not isinstance(self.init_args, Mapping):
            raise UserError(
                f"network is {path!r} with init_args {self.init_args!r}: expected an import path, and arguments by name"
            )
        if "." not in path:
            known = import_module("gnnrl_lightning.networks").__all__
            if path not in known:
                raise UserError(
                    f"network.class_path is {path!r}{suggestion(path, known)}: expected a network of "
                    "gnnrl_lightning.networks, or an import path, package.module.name"
                )
            path = f"gnnrl_lightning.networks.{path}"
        make = resolve(path, "network.class_path")
        if not callable(make):
            raise UserError(f"network.class_path {path!r} is not a class or function: expected what makes the network")
        return make
