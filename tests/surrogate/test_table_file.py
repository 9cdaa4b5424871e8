import torch

from gnnrl_lightning.surrogate.sensitivity import ErrorTable
from gnnrl_lightning.surrogate.table_file import load_table, save_table


def test_a_table_comes_back_exactly(tmp_path):
    measured = torch.rand(3, 2, dtype=torch.float64)
    table = ErrorTable.interpolate(torch.tensor([4, 8, 6]), (0.1, 0.35), measured, 123, ("moments",))
    save_table(table, tmp_path / "table.safetensors")
    again = load_table(tmp_path / "table.safetensors")
    assert torch.equal(again.measured, table.measured) and torch.equal(again.errors, table.errors)
    assert (again.ratios, again.images, again.passes) == ((0.1, 0.35), 123, ("moments",))
