from gnnrl_lightning.env import NegativeCrossEntropy, NegativeTop1Error
from tests.fakes import FakeEvaluation


def test_rewards():
    evaluation = FakeEvaluation((1,), top1=87.5, cross_entropy=0.4)
    assert NegativeTop1Error()(evaluation) == -0.125
    assert NegativeCrossEntropy()(evaluation) == -0.4
