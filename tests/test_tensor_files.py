import os
import stat

import pytest
import torch
from safetensors import safe_open

from gnnrl_lightning.tensor_files import save_tensors


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_who_may_read_the_file_is_as_for_any_other(tmp_path, umask, mode):
    """Also if an interrupted write has left a file."""
    path, before = tmp_path / "a.safetensors", os.umask(umask)
    try:
        for _ in range(2):
            save_tensors({"a": torch.ones(2)}, path)
            assert stat.S_IMODE(path.stat().st_mode) == mode
            path.chmod(0o600)
    finally:
        os.umask(before)


def test_tied_and_transposed_tensors_are_written_by_all_of_their_names(tmp_path):
    tied = torch.arange(6.0).view(2, 3).t().requires_grad_()
    save_tensors({"a": tied, "b": tied}, tmp_path / "a.safetensors", {"what": "a note"})
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        assert file.metadata() == {"what": "a note"}
        assert torch.equal(file.get_tensor("a"), tied) and torch.equal(file.get_tensor("b"), tied)
