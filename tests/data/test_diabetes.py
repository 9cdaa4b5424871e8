import torch
from sklearn.datasets import load_diabetes

from gnnrl_lightning.data import Diabetes


def test_examples_are_scikit_learns_standardised():
    data = Diabetes()
    data.setup()
    assert (len(data.train), len(data.holdout), len(data.test)) == (245, 105, 92)
    parts = [data.train, data.holdout, data.test]
    inputs = torch.cat([part.inputs for part in parts])
    torch.testing.assert_close(inputs.mean(0), torch.zeros(10), atol=1e-5, rtol=0)
    torch.testing.assert_close(inputs.var(0, correction=0), torch.ones(10))
    known = torch.cat([data.train.targets, data.holdout.targets])
    assert abs(float(known.mean())) < 1e-5 and abs(float(known.std()) - 1) < 1e-5
    assert known.shape == (350, 1)
    progress = torch.cat([part.targets for part in parts]).flatten().sort().values
    found = torch.tensor(load_diabetes().target).float().sort().values
    assert torch.corrcoef(torch.stack([progress, found]))[0, 1] > 0.9999
