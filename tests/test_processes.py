import pytest
import torch

from gnnrl_lightning import processes
from gnnrl_lightning.processes import from_first, of_all, rank, share, share_weights, world_size


def test_a_single_process_talks_to_nobody():
    network = torch.nn.Linear(2, 1)
    before = network.weight.clone()
    share_weights(network)
    assert (rank(), world_size(), from_first("a"), of_all("a")) == (0, 1, "a", ["a"])
    assert share([1, 2, 3]) == [1, 2, 3] and torch.equal(network.weight, before)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7])
def test_shares_of_all_are_the_whole(monkeypatch, size):
    shares = []
    for number in range(size):
        monkeypatch.setattr(processes, "rank", lambda number=number: number)
        monkeypatch.setattr(processes, "world_size", lambda: size)
        shares.append(share([*range(6)]))
    assert [item for part in shares for item in part] == [*range(6)]
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
