"""Files of tensors, without pickle."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor


def save_tensors(tensors: Mapping[str, Tensor], path: Path, notes: Mapping[str, str] | None = None) -> None:
    """Write tensors by name; tied ones are written once for each name.

    Args:
        tensors: The tensors, on any device.
        path: The file, `.safetensors`. Who may read it is as for any other new file: safetensors itself makes files
            that only their owner can read.
        notes: Text by name, kept in the file's header.

    Raises:
        OSError: The file cannot be written; safetensors raises its own error for some of the reasons.
    """
    path.unlink(missing_ok=True)
    path.touch()
    mode = stat.S_IMODE(path.stat().st_mode)
    kept = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    save_file(kept, path, dict(notes) if notes else None)
    path.chmod(mode)
