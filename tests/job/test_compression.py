import json
import sys
from types import ModuleType

import pytest
import torch
from lightning.pytorch import Trainer

from gnnrl_lightning.cost.budget import Budget
from gnnrl_lightning.data import Digits
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.evaluation.journal import Journal
from gnnrl_lightning.evaluation.result import best_of
from gnnrl_lightning.job import compression as pipeline
from gnnrl_lightning.job.compression import Compression
from gnnrl_lightning.job.delivery import deliver
from gnnrl_lightning.job.policy_search import AGENT, SearchOptions
from gnnrl_lightning.job.runs import RunFolder
from gnnrl_lightning.job.task import Task
from gnnrl_lightning.networks.spec import NetworkSpec
from gnnrl_lightning.report.progress import SearchStatus
from gnnrl_lightning.rl.learners import GNNRL
from gnnrl_lightning.search.baselines import FROM_SENSITIVITY, STARTING
from gnnrl_lightning.speed.tuning import Tuned
from gnnrl_lightning.training.finetune import TrainingOptions, quiet_trainer


class Flat(torch.nn.Sequential):
    """Two hidden layers on the pixels of a digit."""

    def __init__(self):
        super().__init__(torch.nn.Flatten(), torch.nn.Linear(64, 24), torch.nn.ReLU(), torch.nn.Linear(24, 10))


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


# Of 64 calibration images the table passes each through the dense network, twice (once for the moments), and four
# narrower ones; refit records the dense network once more: 448 images. An evaluation passes them and the 287 of the
# search split, so that these are worth two.
TABLE = 2
STARTS = TABLE + 6
EPISODES = 4


def compression_of(task, trainers=None, device="cpu", **search):
    options = {"evaluations": STARTS + 2 * EPISODES, "calibration_images": 64} | search
    arguments = {"pretrain": TrainingOptions(epochs=5), "finetune": TrainingOptions(epochs=2, learning_rate=0.05)}
    if trainers is not None:
        arguments["trainers"] = trainers
    return Compression(task, Budget(macs=0.5), SearchOptions(**options), device=device, **arguments)


def agent_of(seed=0):
    proxy = {"proxy_warmup": 2, "proxy_between": 1, "proxy_episodes": 8}
    return GNNRL(seed=seed, episodes_per_iteration=EPISODES, epochs=1, minibatches=2, **proxy)


def search_with(compression, folder):
    agent = agent_of()
    compression.start(folder, agent)
    iterations = agent.iterations(compression.iterations(agent))
    flags = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    Trainer(max_epochs=iterations, accelerator="cpu", log_every_n_steps=1, **flags).fit(agent)
    return agent


@pytest.mark.parametrize(("evaluations", "iterations"), [(12, 1), (15, 1), (16, 2), (100, 23)])
def test_iterations_spend_what_table_and_starting_candidates_leave(task, evaluations, iterations):
    compression = compression_of(task, evaluations=evaluations)
    assert compression.iterations(agent_of()) == iterations
    assert STARTS == 8 and STARTS + EPISODES * iterations <= evaluations < STARTS + EPISODES * (iterations + 1)


def test_too_few_evaluations_are_refused(task):
    with pytest.raises(UserError, match=r"search.evaluations is 11: at least 12 are needed, 8 for the 6 starting"):
        compression_of(task, evaluations=11).iterations(agent_of())


def proposers(compression):
    return [scored.proposer for scored in compression.problem.history]


@pytest.mark.parametrize(("repair", "table"), [("refit", TABLE), ("reconstruction", 2)])
def test_candidates_from_the_table_come_first_too(task, tmp_path, repair, table):
    """So what comes back is never worse than greedy or dynamic programming, on the search split."""
    compression = compression_of(task, repair=repair, evaluations=table + 6 + EPISODES)
    folder = RunFolder.create(tmp_path, "run")
    compression.train_dense(folder)
    search_with(compression, folder)
    assert proposers(compression) == [*STARTING, *FROM_SENSITIVITY] + [AGENT] * EPISODES
    assert compression.problem.spent == table + len(compression.problem.history) == table + 10
    best = compression.best()
    assert best.top1 == max(scored.top1 for scored in compression.problem.history)
    assert best.top1 >= max(best_of(compression.problem.history, name).top1 for name in FROM_SENSITIVITY)


def test_images_of_the_table_and_of_the_repair_are_counted(task, tmp_path):
    """Refit reads the 64 calibration images in each evaluation; candidates with one width are evaluated once."""
    compression = compression_of(task)
    folder = RunFolder.create(tmp_path, "run")
    compression.train_dense(folder)
    search_with(compression, folder)
    assert {scored.widths for scored in compression.problem.history} == {(12,)}
    assert compression.problem.images == 287 + 64 + 64 * (3 + 4)
    result = deliver(compression, folder)
    assert result["search"]["images"] == 287 + 64 + 7 * 64 and result["search"]["evaluations"] == STARTS + 2 * EPISODES


def test_a_short_training_of_candidates_is_counted(task, tmp_path):
    """Three steps of 64 images more an evaluation."""
    compression = compression_of(task, finetune_steps=3)
    assert task.data.batch_size == 64
    folder = RunFolder.create(tmp_path, "run")
    compression.train_dense(folder)
    compression.start(folder, agent_of())
    assert compression.problem.history[0].images == 287 + 64 + 3 * 64 == compression.problem.evaluation_images
    assert compression.problem.spent == 1 + 6  # 448 images for the table and refit, of 543 an evaluation


def test_no_more_images_are_counted_than_there_are_to_train_on(task, tmp_path, monkeypatch):
    """A batch of 5,000 of the 1,150 training images takes all of them."""
    compression = compression_of(task, finetune_steps=1, evaluations=30)
    task.data.batch_size = 5000
    folder = RunFolder.create(tmp_path, "run")
    compression.train_dense(folder)
    compression.start(folder, agent_of())
    read = compression.problem.history[0].images
    assert read == 287 + 64 + len(task.data.train) == compression.problem.evaluation_images


def test_without_a_table_there_is_nothing_to_read_and_no_proxy(task, tmp_path):
    compression = compression_of(task, table=None, evaluations=1 + 4 + 2 * EPISODES)
    folder = RunFolder.create(tmp_path, "run")
    compression.train_dense(folder)
    assert compression.iterations(agent_of()) == 2
    agent = search_with(compression, folder)
    assert agent.proxy is None and agent.trainer.current_epoch == 2
    assert proposers(compression) == [*STARTING] + [AGENT] * 2 * EPISODES
    assert compression.problem.spent == 13 and compression.problem.charged_images == 64  # recorded for refit


def test_a_policy_for_all_budgets_delivers_what_meets_this_one(task, tmp_path):
    """Of 24 channels 12 are within half of the MACs; up to 21 are evaluated, and none of these is delivered."""
    compression = compression_of(task, macs_range=(0.4, 0.9), evaluations=STARTS + 3 * EPISODES)
    folder = RunFolder.create(tmp_path, "run")
    compression.train_dense(folder)
    search_with(compression, folder)
    widths = [scored.widths[0] for scored in compression.problem.history if scored.proposer == AGENT]
    assert min(widths) >= 9 and 12 < max(widths) <= 21
    within = [scored for scored in compression.problem.history if scored.widths[0] <= 12]
    best = compression.best()
    assert best.widths[0] <= 12 and best.top1 == max(scored.top1 for scored in within)
    assert compression.status().kept == {"macs": best.widths[0] / 24}
    # More channels are better here: that the best of all is not the one delivered is what is tested.
    assert best_of(compression.problem.history).top1 > best.top1
    result = deliver(compression, folder)
    assert result["pruned"]["macs_ratio"] <= 0.5 and result["pruned"]["widths"] == list(best.widths)
    assert result["search"]["agent_best"] <= best.top1


def test_what_is_delivered_is_repaired_on_more_images(task):
    compression = compression_of(task, final_calibration_images=200)
    pruner = compression.final_pruner()
    assert (len(compression.pruner.calibration), len(pruner.calibration)) == (64, 200)
    assert pruner.scores is compression.pruner.scores and pruner.repair == "refit"
    everything = compression_of(task, final_calibration_images=10**6).final_pruner()
    assert len(everything.calibration) == len(task.data.train)
    assert compression_of(task, final_calibration_images=None).search.final_calibration_images == 1024
    other = compression_of(task, final_calibration_images=10, final_repair="none").final_pruner()
    assert (len(other.calibration), other.repair, other.dtype) == (10, "none", torch.float32)


def test_a_policy_is_made_before_anything_is_scored(task, tmp_path):
    """In an environment of the same states as the one in which it learns."""
    compression, agent = compression_of(task), agent_of()
    compression.prepare(agent)
    policy, sizes, first = agent.actor_critic, agent.env.state_dim, agent.env.initial_action
    assert compression.problem.spent == 0
    folder = RunFolder.create(tmp_path, "run")
    compression.train_dense(folder)
    compression.start(folder, agent)
    assert agent.actor_critic is policy
    assert agent.env.state_dim == agent.proxy.state_dim == sizes and agent.env.initial_action == first


def test_a_policy_that_cannot_be_made_is_the_users_error(task):
    def broken(state_dim, action_dim):
        raise ZeroDivisionError("no heads\nand no tails")

    with pytest.raises(UserError, match=r"^model.actor_critic cannot be made: no heads and no tails$"):
        compression_of(task).prepare(GNNRL(actor_critic=broken))


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
    assert status.evaluations == compression.problem.spent == TABLE + len(compression.problem.history) == 16
    assert status.best_reward == compression.best().top1 / 100 - 1
    result = deliver(compression, folder)
    assert reads
    assert [phase for phase, _ in phases] == ["dense", "uniform", "pruned"]
    assert phases[1][1] == phases[2][1]
    dense = 64 * 24 + 24 * 10
    assert result["dense"]["macs"] == dense
    assert result["uniform"]["widths"] == [12] and result["uniform"]["macs"] == 64 * 12 + 12 * 10 == dense // 2
    assert result["search"]["evaluations"] == 16 and result["search"]["seed"] == 3
    assert json.loads(folder.result.read_text()) == result


def test_deliver_needs_a_search(task, tmp_path):
    with pytest.raises(RuntimeError, match=r"deliver\(\) comes after start\(\)"):
        deliver(compression_of(task), RunFolder.create(tmp_path, "run"))


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
    search = SearchOptions(evaluations=STARTS + EPISODES, calibration_images=64)
    compression = Compression(task, Budget(macs=0.5), search, TrainingOptions(epochs=1), finetune)
    taught = []
    original = task.train

    def record(network, options, trainer, teacher=None, checkpoint=None):
        taught.append(teacher)
        original(network, options, trainer, teacher, checkpoint)

    object.__setattr__(task, "train", record)
    folder = RunFolder.create(tmp_path, "taught")
    compression.train_dense(folder)
    search_with(compression, folder)
    deliver(compression, folder)
    assert taught == [None, compression.dense, compression.dense]


def test_there_is_no_teacher_for_the_dense_network(task):
    with pytest.raises(UserError, match="needs a teacher"):
        Compression(task, Budget(macs=0.5), pretrain=TrainingOptions(distillation_weight=0.5))


def test_candidates_race_unless_each_has_a_budget_of_its_own(task):
    def error_of(compression, agent=None):
        return compression.make_problem(compression.limits, Journal(), agent)._evaluate.evaluator.error

    compression = compression_of(task, racing_error=0.1)
    assert error_of(compression) == 0.1
    assert error_of(compression, SearchOptions(macs_range=(0.3, 0.7))) is None
    assert error_of(compression_of(task, racing=False)) is None
    assert error_of(compression_of(task, macs_range=(0.3, 0.7))) is None


def test_precision_and_batch_size_are_measured_on_request(task, monkeypatch):
    asked = []

    def tune(network, layers, images, sizes):
        asked.append((len(images), sizes))
        return Tuned("bf16", sizes[-1], {"bf16": 0.1})

    monkeypatch.setattr(pipeline, "tune", tune)
    for given, expected in ((None, 512), (40, 40)):
        compression = compression_of(task, precision="auto", batch_size=given)
        assert (compression.search.precision, compression.search.batch_size) == ("bf16", expected)
        for evaluator in (compression.make_evaluator(), compression.problem._evaluate.evaluator):
            assert (evaluator.dtype, evaluator.batch_size) == (torch.bfloat16, expected)
    assert asked == [(287, (64, 128, 256, 512)), (40, (40,))]
    compression = compression_of(task)
    assert compression.tuned is None and compression.make_evaluator().batch_size == task.data.eval_batch_size
    assert compression_of(task, batch_size=9).make_evaluator().batch_size == 9


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_whole_run_on_a_gpu(task, tmp_path):
    compression = compression_of(task, device="cuda")
    folder = RunFolder.create(tmp_path, "run")
    compression.train_dense(folder)
    search_with(compression, folder)
    homes = {tensor.device.type for tensor in compression.dense.state_dict().values()}
    homes |= {inputs.device.type for inputs, _ in compression.make_evaluator().batches}
    assert homes == {"cuda"}
    result = deliver(compression, folder)
    assert result["pruned"]["macs_ratio"] <= 0.5 and (folder.pruned / "model.pt2").is_file()
