"""The settings of a run that decide its result, and those that may change before it is resumed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from gnnrl_lightning.errors import UserError, one_line
from gnnrl_lightning.files import text_of
from gnnrl_lightning.options import flat
from gnnrl_lightning.runs.folder import RunFolder

FREE = (
    "overwrite",
    "run",
    *(
        f"trainer.{name}"
        for name in (
            "accelerator",  # rounds differently
            "default_root_dir",
            "enable_autolog_hparams",
            "enable_model_summary",
            "enable_progress_bar",
            "log_every_n_steps",
            "logger",
            "model_registry",
            "profiler",
        )
    ),
    "data.init_args.memory_limit_gib",
    "data.init_args.num_workers",
    "delivery.formats",
    "delivery.largest_drop",
    "latency.cache",
)
"""Keys that decide no result: what is shown, logged and written, and where, and how fast.

The number of processes is none of them: each process evaluates candidates of its own.
"""


def read_settings(folder: RunFolder) -> Mapping[str, Any]:
    """Read the configuration that a run began with.

    Args:
        folder: Folder of the run, whose files have been checked.
    """
    return yaml.safe_load(folder.began.read_text(encoding="utf-8"))


def read_config(folder: RunFolder) -> tuple[Mapping[str, Any], str]:
    """Read the configuration of a run.

    Args:
        folder: Folder of the run.

    Returns:
        The configuration, and the same as text.

    Raises:
        UserError: It cannot be read.
    """
    try:
        text = text_of(folder.config)
        config = yaml.safe_load(text)
        if not isinstance(config, Mapping):
            raise ValueError("it has no keys")
    except (ValueError, RecursionError, yaml.YAMLError) as error:  # an invalid encoding is a ValueError
        raise UserError(f"{folder.config} is damaged ({one_line(error)}): {_remedy(folder)}") from error
    return config, text


def check_settings(folder: RunFolder) -> None:
    """Refuse a configuration with other settings than the run began with.

    Args:
        folder: Folder of the run, with the settings that it began with.

    Raises:
        UserError: The configuration cannot be read, or a setting differs that decides the result.
    """
    now, _ = read_config(folder)
    for key, before, after in changes(read_settings(folder), now, FREE):
        name = ".".join(key)
        raise UserError(
            f"{folder.config}: {name if name.isprintable() else repr(name)} is {after!r}, and the run began with "
            f"{before!r}: its result depends on it; {_remedy(folder)}"
        )


def _remedy(folder: RunFolder) -> str:
    return f"copy {folder.began} over it to go on, or begin another run"


def changes(before: Any, now: Any, free: Sequence[str]) -> Iterator[tuple[tuple[str, ...], Any, Any]]:
    """Yield the keys that differ between two configurations, with both values.

    A key that is missing counts as different from one that is null, because its default may be another; its value is
    yielded as None, too.

    Args:
        before: The earlier configuration.
        now: The later configuration.
        free: Keys or sections to leave out, with dots.
    """
    earlier, later = flat(before), flat(now)
    for key in sorted(earlier.keys() | later.keys()):
        sections = {".".join(key[:length]) for length in range(1, len(key) + 1)}
        same = key in earlier and key in later and earlier[key] == later[key]
        if not same and not sections & set(free):
            yield key, earlier.get(key), later.get(key)
