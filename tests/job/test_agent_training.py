"""Learners and callbacks that Lightning refuses are one line; what it accepts trains."""

from functools import partial

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import (
    BackboneFinetuning,
    BatchSizeFinder,
    EarlyStopping,
    LearningRateMonitor,
    StochasticWeightAveraging,
)

from gnnrl_lightning.errors import UserError
from gnnrl_lightning.job.agent_training import fit_agent
from gnnrl_lightning.rl.encoders import GCN
from gnnrl_lightning.rl.learners import GNNRL
from gnnrl_lightning.rl.policies import Agent
from gnnrl_lightning.training.train import quiet_trainer
from tests.support.fakes import RingTask

pytestmark = [
    pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*number of training batches .* is smaller than the logging interval"),
    pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec.:FutureWarning"),
    pytest.mark.filterwarnings("ignore:`LightningModule.configure_optimizers` returned `None`"),
]
Adam, Plateau = torch.optim.Adam, torch.optim.lr_scheduler.ReduceLROnPlateau


class Returning(GNNRL):
    """A learner whose `configure_optimizers` returns what a function makes of an optimizer."""

    make = staticmethod(lambda optimizer: optimizer)

    def configure_optimizers(self):
        return self.make(Adam(self.policy.parameters(), 1e-3))


class NoLoader(GNNRL):
    def train_dataloader(self):
        return None


def fitted(kind=GNNRL, callbacks=()):
    policy = partial(Agent, encoder=partial(GCN, hidden=4, layers=1))
    agent = kind(RingTask(), policy, episodes_per_iteration=4, epochs=1, minibatches=1)
    fit_agent(agent, quiet_trainer(max_epochs=2, accelerator="cpu", log_every_n_steps=1, callbacks=[*callbacks]))
    return agent


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda optimizer: None, r"^Returning.configure_optimizers returns None: expected an optimizer, as its base"),
        (lambda optimizer: [optimizer] * 2, "^Lightning refuses Returning: Training with multiple optimizers is only"),
        (lambda optimizer: "adam", "^Lightning refuses Returning: Unknown configuration for model optimizers"),
        (
            lambda optimizer: {
                "optimizer": optimizer,
                "lr_scheduler": {"scheduler": Plateau(optimizer), "monitor": "x"},
            },
            "^Lightning refuses Returning: ReduceLROnPlateau conditioned on metric x which is not available",
        ),
    ],
)
def test_what_a_learner_returns_wrongly_is_one_line(monkeypatch, make, message):
    monkeypatch.setattr(Returning, "make", staticmethod(make))
    with pytest.raises(UserError, match=message):
        fitted(Returning)


def test_a_learner_without_a_loader_is_one_line():
    with pytest.raises(UserError, match=r"^Lightning refuses NoLoader: An invalid dataloader was returned from"):
        fitted(NoLoader)


@pytest.mark.parametrize(
    "make",
    [
        lambda optimizer: [optimizer],
        lambda optimizer: {"optimizer": optimizer},
        lambda optimizer: ([optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1)]),
    ],
)
def test_other_forms_of_optimizers_train(monkeypatch, make):
    monkeypatch.setattr(Returning, "make", staticmethod(make))
    assert fitted(Returning).evaluations == 8


@pytest.mark.parametrize(
    ("callback", "message"),
    [
        (
            partial(EarlyStopping, "nothing"),
            "^callback EarlyStopping fails: .*`nothing` which is not available.*leave it out",
        ),
        (LearningRateMonitor, "^callback LearningRateMonitor fails: .*no logger"),
        (BatchSizeFinder, "^callback BatchSizeFinder fails: .*batch_size not found"),
        (BackboneFinetuning, "^callback BackboneFinetuning fails: .*no attribute 'backbone'"),
    ],
)
def test_a_callback_of_lightning_that_fails_is_one_line(callback, message):
    with pytest.raises(UserError, match=message):
        fitted(callbacks=[callback()])


def test_callbacks_that_fit_do_their_work():
    averaging = StochasticWeightAveraging(swa_lrs=0.01, swa_epoch_start=1)
    stopping = EarlyStopping("rollout/reward_best", mode="min", patience=1)
    fitted(callbacks=[averaging, stopping])
    assert averaging.n_averaged == 2 and stopping.best_score < 0


class Failing(Callback):
    def on_train_epoch_end(self, trainer, pl_module):
        torch.zeros(2) @ torch.zeros(3)


class Full(Callback):
    def on_train_epoch_end(self, trainer, pl_module):
        raise OSError(28, "No space left on device", "a.ckpt")


@pytest.mark.parametrize(("callback", "error"), [(Failing, RuntimeError), (Full, OSError)])
def test_errors_of_the_users_own_code_and_of_the_system_pass(callback, error):
    with pytest.raises(error) as raised:
        fitted(callbacks=[callback()])
    assert not isinstance(raised.value, UserError)
