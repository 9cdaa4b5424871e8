"""Hooks that change batches between a loader and a network; nothing here calls them."""

from __future__ import annotations

from lightning.pytorch.core.hooks import DataHooks

from gnnrl_lightning.errors import UserError

HOOKS = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")


def overrides(given: DataHooks, name: str) -> bool:
    """Whether a module has a method of its own, in its class or set on the object."""
    return getattr(getattr(given, name), "__func__", None) is not getattr(DataHooks, name)


def check_batch_hooks(given: DataHooks, who: str) -> None:
    """Refuse hooks that change batches.

    Args:
        given: A data module, or a network that is a LightningModule.
        who: What the message calls it.

    Raises:
        UserError: It has such a hook.
    """
    for hook in HOOKS:
        if overrides(given, hook):
            raise UserError(
                f"{who} has {hook}, which is not called here: let the data sets return what the network reads, or "
                "write a subclass of ExampleData with `augment` and `normalize`"
            )
