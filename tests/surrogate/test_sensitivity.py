import pytest
import torch
from safetensors.torch import save_file

from gnnrl_lightning.errors import UserError
from gnnrl_lightning.surrogate.sensitivity import Sensitivity, load_sensitivity, save_sensitivity, widths_at

RATIOS = (0.25, 0.5)


def test_square_roots_are_interpolated():
    sensitivity = Sensitivity.interpolate(torch.tensor([8, 4]), RATIOS, torch.tensor([[9.0, 4.0], [1.0, 1.0]]))
    # 8 channels: roots 3 at 2, 2 at 4, 0 at 8; narrower than 2 as between 2 and 4.
    by_hand = torch.tensor([4.0, 3.5, 3.0, 2.5, 2.0, 1.5, 1.0, 0.5, 0.0]) ** 2
    torch.testing.assert_close(sensitivity.losses[0], by_hand.double())
    # 4 channels: 1 at 1 and 2, 0 at 4 and where there are no more channels.
    torch.testing.assert_close(sensitivity.losses[1], torch.tensor([1, 1, 1, 0.25, 0, 0, 0, 0, 0]).double())
    widths = torch.tensor([[8, 4], [3, 3], [2, 1]])
    torch.testing.assert_close(sensitivity.of_groups(widths)[1], torch.tensor([6.25, 0.25]).double())
    assert sensitivity(widths).tolist() == [0.0, 6.5, 10.0]


def test_losses_never_rise_with_the_width():
    sensitivity = Sensitivity.interpolate(torch.tensor([16]), (0.25, 0.5, 0.75), torch.tensor([[1.0, 4.0, 2.0]]))
    assert (sensitivity.losses[0].diff() <= 0).all() and sensitivity.losses[0, 4] == 4


def test_widths_at_a_ratio():
    assert widths_at(torch.tensor([1, 3, 16]), 0.5).tolist() == [1, 2, 8]
    assert widths_at(torch.tensor([1, 3, 16]), 0.01).tolist() == [1, 1, 1]


def saved_at(path):
    measured = torch.rand(3, 2, dtype=torch.float64)
    sensitivity = Sensitivity.interpolate(torch.tensor([4, 8, 6]), (0.1, 0.35), measured, 123, ("moments",))
    save_sensitivity(sensitivity, path)
    return sensitivity


def test_a_sensitivity_comes_back_exactly(tmp_path):
    sensitivity = saved_at(tmp_path / "sensitivity.safetensors")
    again = load_sensitivity(tmp_path / "sensitivity.safetensors")
    assert torch.equal(again.measured, sensitivity.measured) and torch.equal(again.losses, sensitivity.losses)
    assert (again.ratios, again.examples, again.passes) == ((0.1, 0.35), 123, ("moments",))


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-5])


def emptied(path):
    path.write_bytes(b"")


def of_another_kind(path):
    save_file({"measured": torch.zeros(1)}, path)


def without_losses(path):
    save_file({"measured": torch.zeros(1)}, path, {"beside": '{"ratios": [0.5], "examples": 0, "passes": []}'})


@pytest.mark.parametrize("damage", [cut_short, emptied, of_another_kind, without_losses])
def test_a_damaged_file_is_refused(tmp_path, damage):
    path = tmp_path / "sensitivity.safetensors"
    saved_at(path)
    damage(path)
    with pytest.raises(
        UserError, match=r"sensitivity.safetensors is damaged .*: expected a sensitivity; remove the file"
    ):
        load_sensitivity(path)
