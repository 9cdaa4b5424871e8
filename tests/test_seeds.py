import torch

from gnnrl_lightning.seeds import derived_seed, generator_for


def test_seeds_differ_in_every_place_of_the_key():
    seeds = {derived_seed(a, b, c) for a in range(4) for b in range(4) for c in range(4)}
    assert len(seeds) == 64
    assert min(seeds) >= 0 and max(seeds) < 2**63
    assert torch.equal(torch.rand(3, generator=generator_for(1, 2)), torch.rand(3, generator=generator_for(1, 2)))
