import pytest
import torch
from torch import nn
from torch.nn import functional as F

from gnnrl_lightning.tracing.program import older_torch
from gnnrl_lightning.tracing.program.export import exported_program
from gnnrl_lightning.tracing.program.older_torch import OLDER, attention_of_heads


def test_attention_without_heads_is_an_error_where_it_would_end_the_process(monkeypatch):
    monkeypatch.setattr(older_torch, "OLDER", True)
    some, none = torch.randn(2, 3, 5, 4), torch.randn(2, 0, 5, 4)
    with attention_of_heads():
        assert F.scaled_dot_product_attention(some, some, some).shape == (2, 3, 5, 4)
        for arguments in ((none, none, none), (none, none)):
            with pytest.raises(RuntimeError, match=r"^attention without heads needs PyTorch 2\.13 or newer$"):
                F.scaled_dot_product_attention(*arguments, **({} if len(arguments) == 3 else {"value": none}))


@pytest.mark.skipif(OLDER, reason="this version of PyTorch divides by zero")
def test_elsewhere_it_is_empty():
    none = torch.randn(2, 0, 5, 4)
    with attention_of_heads():
        assert F.scaled_dot_product_attention(none, none, none).shape == (2, 0, 5, 4)


class Keeping(nn.Module):
    """It keeps tensors in an attribute, in one of a part, and in a list."""

    def __init__(self):
        super().__init__()
        self.part, self.last, self.maps = nn.Linear(3, 3), torch.zeros(3), [torch.zeros(3)]
        self.part.kept = None

    def forward(self, x):
        self.last = self.part.kept = self.part(x)
        self.maps[0] = self.last + 1
        return self.last + self.maps[0]


@pytest.mark.parametrize("older", [OLDER, True])
def test_attributes_in_which_code_keeps_tensors_are_restored(monkeypatch, older):
    monkeypatch.setattr(older_torch, "OLDER", older)
    network = Keeping()
    last, first = network.last, network.maps[0]
    program = exported_program(network, (torch.zeros(2, 3),))
    assert network.last is last and network.maps[0] is first
    assert network.part.kept is None
    assert program.module()(torch.zeros(2, 3)).shape == (2, 3)
