import pytest

from gnnrl_lightning.data import Digits


@pytest.fixture(scope="package")
def digits():
    """1,150 training images in nine batches of at most 128, and a holdout of 287."""
    data = Digits(batch_size=128)
    data.prepare_data()
    data.setup()
    return data
