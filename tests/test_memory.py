import sys

import torch

from gnnrl_lightning.memory import keep_freed_memory


def test_freed_blocks_are_used_again():
    assert keep_freed_memory() == sys.platform.startswith("linux")
    torch.empty(2**20).fill_(1.0)  # 4 MiB: mapped anew each time without it
    addresses = {torch.empty(2**20).data_ptr() for _ in range(5)}
    assert len(addresses) == 1
