import torch

from gnnrl_lightning.data import DigitPixels
from gnnrl_lightning.data.digit_pixels import INK


def test_every_pixel_has_the_class_of_its_ink():
    data = DigitPixels(canvases=40)
    data.setup()
    assert (len(data.train), len(data.holdout), len(data.test)) == (32, 8, 10)
    train = data.train
    assert train.inputs.shape == (32, 1, 20, 20) and train.targets.shape == (32, 20, 20)
    assert torch.equal(train.inputs[:, 0] >= INK, train.targets > 0)
    assert train.targets.unique().tolist() == [0, 1, 2]
    again = DigitPixels(canvases=40)
    again.setup()
    assert torch.equal(again.train.inputs, train.inputs)
    normal = data.normalize(train.inputs)
    assert abs(float(normal.mean())) < 0.5 and 0.7 < float(normal.std()) < 1.5
