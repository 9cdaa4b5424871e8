import pytest
import torch
from torch.nn import functional as F

from gnnrl_lightning.tracing.program import heads
from gnnrl_lightning.tracing.program.heads import ENDS_PROCESS, attention_of_heads


def test_attention_without_heads_is_an_error_where_it_would_end_the_process(monkeypatch):
    monkeypatch.setattr(heads, "ENDS_PROCESS", True)
    some, none = torch.randn(2, 3, 5, 4), torch.randn(2, 0, 5, 4)
    with attention_of_heads():
        assert F.scaled_dot_product_attention(some, some, some).shape == (2, 3, 5, 4)
        for arguments in ((none, none, none), (none, none)):
            with pytest.raises(RuntimeError, match=r"^attention without heads needs PyTorch 2\.13 or newer$"):
                F.scaled_dot_product_attention(*arguments, **({} if len(arguments) == 3 else {"value": none}))


@pytest.mark.skipif(ENDS_PROCESS, reason="this version of PyTorch divides by zero")
def test_elsewhere_it_is_empty():
    none = torch.randn(2, 0, 5, 4)
    with attention_of_heads():
        assert F.scaled_dot_product_attention(none, none, none).shape == (2, 0, 5, 4)
