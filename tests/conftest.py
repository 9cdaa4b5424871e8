import os

# Before anything imports them: no window, no network, no account.
os.environ["MPLBACKEND"] = "Agg"
os.environ["WANDB_MODE"] = "offline"
os.environ["WANDB_SILENT"] = "true"

import pytest
import torch
from hypothesis import settings

# Random tests draw the same examples each time. `make test-all` uses the profile "full".
random = {"deadline": None, "derandomize": True, "database": None}
settings.register_profile("quick", max_examples=50, **random)
settings.register_profile("full", max_examples=320, **random)
settings.load_profile("quick")

# Small tensors gain nothing from more threads, and lose much when other processes compete for the cores.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def fixed_seed():
    """Every test starts from the same random state, whatever ran before it."""
    torch.manual_seed(0)
