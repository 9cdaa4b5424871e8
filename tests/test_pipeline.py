import json
import sys
from types import ModuleType

import pytest
import torch
from lightning.pytorch import Trainer

from gnnrl_lightning.data import Digits
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.finetune import TrainingOptions, quiet_trainer
from gnnrl_lightning.graph.budget import Budget
from gnnrl_lightning.module import GNNRL
from gnnrl_lightning.networks.spec import NetworkSpec
from gnnrl_lightning.pipeline import Compression, SearchOptions
from gnnrl_lightning.report.progress import SearchStatus
from gnnrl_lightning.runs import RunFolder
from gnnrl_lightning.search.baselines import FROM_TABLE, STARTING
from gnnrl_lightning.task import Task


class Flat(torch.nn.Sequential):
    """Two hidden layers on the pixels of a digit."""

    def __init__(self):
        super().__init__(
            torch.nn.Flatten(), torch.nn.Linear(64, 24), torch.nn.ReLU(), torch.nn.Linear(24, 10)
        )


class Linear(torch.nn.Sequential):
    """Nothing between the pixels and the classes."""

    def __init__(self):
        super().__init__(torch.nn.Flatten(), torch.nn.Linear(64, 10))


@pytest.fixture
def task(monkeypatch):
    module = ModuleType("flat_networks")
    module.Flat, module.Linear = Flat, Linear
    monkeypatch.setitem(sys.modules, "flat_networks", module)
    return Task(NetworkSpec("flat_networks.Flat"), Digits(), seed=3)


def compression_of(task, trainers=None, **search):
    options = {"evaluations": 4 + 2 * 4, "calibration_images": 64} | search
    arguments = {"pretrain": TrainingOptions(epochs=5), "finetune": TrainingOptions(epochs=2, learning_rate=0.05)}
    if trainers is not None:
        arguments["trainers"] = trainers
    return Compression(task, Budget(macs=0.5), SearchOptions(**options), **arguments)


def search_with(compression, folder):
    agent = GNNRL(seed=0, episodes_per_iteration=4)
    agent.env = compression.start(folder)
    flags = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    Trainer(max_epochs=compression.search.iterations(4), accelerator="cpu", log_every_n_steps=1, **flags).fit(agent)


@pytest.mark.parametrize(("evaluations", "iterations"), [(12, 1), (19, 1), (20, 2), (100, 12)])
def test_iterations_spend_what_the_starting_candidates_leave(evaluations, iterations):
    options = SearchOptions(evaluations=evaluations)
    assert len(STARTING) == 4 and options.iterations(episodes=8) == iterations
    assert options.evaluations_of(iterations, 8) == 4 + 8 * iterations <= evaluations


def test_candidates_from_the_table_come_first_too_where_the_moments_are_there(task, tmp_path):
    """So what comes back is never worse than greedy or dynamic programming, on the search split."""
    compression = compression_of(task, repair="reconstruction", evaluations=6 + 4)
    folder = RunFolder.create(tmp_path, "run")
    compression.train_dense(folder)
    search_with(compression, folder)
    assert list(compression.scored) == [*STARTING, *FROM_TABLE] and compression.search.starting == 6
    assert compression.evaluator.count == 10
    best = compression.evaluator.best
    assert best.top1 == max(scored.top1 for scored in compression.evaluator.history)
    assert best.top1 >= max(compression.scored[name].top1 for name in FROM_TABLE)


def test_too_few_evaluations_are_refused():
    with pytest.raises(UserError, match=r"search.evaluations is 11: at least 12 are needed"):
        SearchOptions(evaluations=11).iterations(8)


def test_checking_writes_nothing_and_leaves_no_trace_in_the_random_state(task, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = torch.get_rng_state()
    compression_of(task)
    assert torch.equal(torch.get_rng_state(), before)
    assert list(tmp_path.iterdir()) == []


def test_seed_gives_the_weights(task):
    torch.manual_seed(1)
    first = task.build()
    torch.manual_seed(2)
    assert torch.equal(first[1].weight, task.build()[1].weight)


def test_the_whole_job(task, tmp_path, monkeypatch):
    """Test images are read by deliver alone, and uniform is fine-tuned exactly as ours is."""
    phases, reads = [], []

    def trainers(phase):
        def make(**flags):
            phases.append((phase, flags))
            return quiet_trainer(**flags)

        return make

    read = Digits.test.fget
    monkeypatch.setattr(Digits, "test", property(lambda data: reads.append(1) or read(data)))
    compression = compression_of(task, trainers)
    folder = RunFolder.create(tmp_path, "run")
    assert compression.status() == SearchStatus(0)
    compression.train_dense(folder)
    search_with(compression, folder)
    assert not reads
    status = compression.status()
    assert status.evaluations == compression.evaluator.count == 12
    assert status.best_reward == compression.evaluator.best.top1 / 100 - 1
    result = compression.deliver(folder)
    assert reads
    assert [phase for phase, _ in phases] == ["dense", "uniform", "pruned"]
    assert phases[1][1] == phases[2][1]
    dense = 64 * 24 + 24 * 10
    assert result["dense"]["macs"] == dense
    assert result["uniform"]["widths"] == [12] and result["uniform"]["macs"] == 64 * 12 + 12 * 10 == dense // 2
    assert result["search"]["evaluations"] == 12 and result["search"]["seed"] == 3
    assert json.loads(folder.result.read_text()) == result


def test_deliver_needs_a_search(task, tmp_path):
    with pytest.raises(RuntimeError, match=r"deliver\(\) comes after start\(\)"):
        compression_of(task).deliver(RunFolder.create(tmp_path, "run"))


def test_a_checkpoint_is_not_trained_again(task, tmp_path):
    compression = compression_of(task)
    compression.train_dense(RunFolder.create(tmp_path, "run"))
    weights = tmp_path / "run" / "checkpoints" / "dense.safetensors"
    loaded = compression_of(Task(task.network, task.data, str(weights)), trainers=lambda phase: pytest.fail(phase))
    before = loaded.dense[1].weight.clone()
    loaded.train_dense(RunFolder.create(tmp_path, "other"))
    assert torch.equal(loaded.dense[1].weight, before)
    assert torch.equal(before, compression.dense[1].weight)


def test_networks_without_prunable_channels_are_refused(task):
    with pytest.raises(UserError, match=r"flat_networks.Linear has no channels that can be pruned"):
        compression_of(Task(NetworkSpec("flat_networks.Linear"), task.data))


def test_images_are_fetched_before_they_are_read(task, monkeypatch):
    calls = []
    monkeypatch.setattr(Digits, "prepare_data", lambda data: calls.append("prepare_data"))
    setup = Digits.setup
    monkeypatch.setattr(Digits, "setup", lambda data, stage=None: calls.append("setup") or setup(data, stage))
    task.build()
    assert calls == ["prepare_data", "setup"]


def test_the_dense_network_teaches_the_pruned_ones(task, tmp_path):
    finetune = TrainingOptions(epochs=1, learning_rate=0.05, distillation_weight=1.0)
    search = SearchOptions(evaluations=4 + 4, calibration_images=64)
    compression = Compression(task, Budget(macs=0.5), search, TrainingOptions(epochs=1), finetune)
    taught = []
    original = task.train

    def record(network, options, trainer, teacher=None):
        taught.append(teacher)
        original(network, options, trainer, teacher)

    object.__setattr__(task, "train", record)
    folder = RunFolder.create(tmp_path, "taught")
    compression.train_dense(folder)
    search_with(compression, folder)
    compression.deliver(folder)
    assert taught == [None, compression.dense, compression.dense]


def test_there_is_no_teacher_for_the_dense_network(task):
    with pytest.raises(UserError, match="needs a teacher"):
        Compression(task, Budget(macs=0.5), pretrain=TrainingOptions(distillation_weight=0.5))
