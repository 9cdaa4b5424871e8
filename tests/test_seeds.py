import torch

from gnnrl_lightning.seeds import derived_seed, generator_for


def test_seeds_are_always_the_same():
    """Another way to derive them would change every run: numpy's SeedSequence, its 64 bits without the lowest."""
    assert derived_seed(0) == 7_896_617_691_693_857_887
    assert derived_seed(3, 1, 4) == 1_798_932_345_466_327_501
    assert torch.rand(2, generator=generator_for(3, 1, 4)).tolist() == [0.18444639444351196, 0.24305462837219238]


def test_seeds_differ_in_every_place_of_the_key():
    seeds = {derived_seed(a, b, c) for a in range(4) for b in range(4) for c in range(4)}
    assert len(seeds) == 64
    assert min(seeds) >= 0 and max(seeds) < 2**63
    assert torch.equal(torch.rand(3, generator=generator_for(1, 2)), torch.rand(3, generator=generator_for(1, 2)))
