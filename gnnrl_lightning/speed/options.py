"""How latency is measured: on what, with what, and with which table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gnnrl_lightning.checks import as_path, one_of, whole
from gnnrl_lightning.options import MOST_THREADS, at_least, check_fields
from gnnrl_lightning.speed.backends import BACKENDS
from gnnrl_lightning.speed.inference import PRECISIONS


@dataclass(frozen=True)
class LatencyOptions:
    """Measurement of latency, for `budget.latency` and the table of results.

    Args:
        batch_size: Examples of a forward pass.
        threads: CPU threads; null: those of the run.
        precision: Precision of weights and activations: 32 or bf16.
        backend: What runs the networks: eager, onnxruntime, compile, or the import path of your own, see
            `gnnrl_lightning.speed.backends`.
        table: Your own table of operators, for example of a phone, CSV or JSON; null: measured on this machine.
        cache: Folder in which measured tables are kept; null: none are kept.

    Raises:
        UserError: A number is out of range, or a name is unknown.
    """

    batch_size: int = 64
    threads: int | None = None
    precision: Literal["32", "bf16"] = "32"
    backend: str = "eager"
    table: str | None = None
    cache: str | None = "~/.cache/gnnrl_lightning"

    def __post_init__(self) -> None:
        check_fields(self, "latency")
        at_least("latency", 1, batch_size=self.batch_size)
        if self.threads is not None:
            whole("latency.threads", self.threads, 1, MOST_THREADS, ", or null")
        one_of("latency.precision", self.precision, PRECISIONS)
        BACKENDS.find(self.backend, "latency.backend")
        for name, path in (("table", self.table), ("cache", self.cache)):
            if path is not None:
                as_path(f"latency.{name}", path, "folder" if name == "cache" else "file", ", or null")
