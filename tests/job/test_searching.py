"""The stages of a job: checks, training, costs and results of the search, and delivery."""

import dataclasses
import json
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch

from gnnrl_lightning.cost.budget import Budget
from gnnrl_lightning.data import Digits
from gnnrl_lightning.data.image_set import ImageSet
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.evaluation.journal import Journal
from gnnrl_lightning.evaluation.result import best_of
from gnnrl_lightning.job import deciding, searching
from gnnrl_lightning.job.checked import check
from gnnrl_lightning.job.delivery import deliver
from gnnrl_lightning.job.given_widths import as_widths, read_widths
from gnnrl_lightning.job.job import Runtime
from gnnrl_lightning.job.options import Options
from gnnrl_lightning.job.searching import begin, search
from gnnrl_lightning.job.task import Task
from gnnrl_lightning.job.trained import train
from gnnrl_lightning.networks.spec import NetworkSpec
from gnnrl_lightning.report.progress import SearchStatus
from gnnrl_lightning.rl.env.options import EpisodeOptions
from gnnrl_lightning.rl.environments import AGENT
from gnnrl_lightning.rl.learners import GNNRL
from gnnrl_lightning.runs.folder import RunFolder
from gnnrl_lightning.search.baselines import FROM_SENSITIVITY, STARTING
from gnnrl_lightning.speed.tuning import Tuned
from gnnrl_lightning.training.options import TrainingOptions
from gnnrl_lightning.training.train import quiet_trainer
from tests.support.options import options_of


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


# The sensitivity passes 64 calibration images through the dense network twice (once for the moments) and through five
# narrower networks; refit records the dense network once more: 512 images. An evaluation reads the calibration images
# and the 287 of the holdout, so that these passes cost two evaluations.
TABLE = 2
STARTS = TABLE + 6
EPISODES = 4
LAST = 8
"""Evaluations at the end of a search over a range of budgets: the budget's and those of seven shares."""


def checked_of(task, trainers=None, device="cpu", **options):
    """A checked job; options by name, whatever their section."""
    given = {"evaluations": STARTS + 2 * EPISODES, "calibration_examples": 64} | options
    training = {"pretraining": TrainingOptions(epochs=5), "finetuning": TrainingOptions(epochs=2, learning_rate=0.05)}
    runtime = {"device": torch.device(device)} | ({} if trainers is None else {"trainers": trainers})
    return check(task, Budget(macs=0.5), options_of(**training, **given), Runtime(**runtime))


def trained_of(task, folder, **options):
    return train(checked_of(task, **options), folder)


def agent_of(seed=0):
    proxy = {"proxy_warmup": 2, "proxy_between": 1, "proxy_episodes": 8}
    return GNNRL(seed=seed, episodes_per_iteration=EPISODES, epochs=1, minibatches=2, **proxy)


@pytest.fixture
def folder(tmp_path):
    return RunFolder.create(tmp_path, "run")


@pytest.mark.parametrize(("evaluations", "iterations"), [(12, 1), (15, 1), (16, 2), (100, 23)])
def test_iterations_spend_what_table_and_starting_candidates_leave(task, evaluations, iterations):
    assert checked_of(task, evaluations=evaluations).job.iterations(agent_of()) == iterations
    assert STARTS == 8 and STARTS + EPISODES * iterations <= evaluations < STARTS + EPISODES * (iterations + 1)


def test_too_few_evaluations_are_refused(task):
    with pytest.raises(UserError, match=r"search.evaluations is 11: at least 12 are needed, 8 for the 6 starting"):
        checked_of(task, evaluations=11).job.iterations(agent_of())


def proposers(found):
    return [scored.proposer for scored in found.history]


def begun(task, folder, **options):
    return begin(trained_of(task, folder, **options), agent_of(), folder)


@pytest.mark.parametrize(("repair", "spent"), [("refit", TABLE), ("reconstruction", 2)])
def test_candidates_from_the_sensitivity_come_first_too(task, folder, repair, spent):
    """So the result is never worse than greedy or dynamic programming on the held-out images."""
    found = search(trained_of(task, folder, repair=repair, evaluations=spent + 6 + EPISODES), agent_of(), folder)
    assert proposers(found) == [*STARTING, *FROM_SENSITIVITY] + [AGENT] * EPISODES
    assert found.evaluations == spent + len(found.history) == spent + 10
    assert found.best.merit[0] == max(scored.merit[0] for scored in found.history)
    assert found.best.merit[0] >= max(best_of(found.history, name).merit[0] for name in FROM_SENSITIVITY)


def test_images_of_the_sensitivity_and_of_the_repair_are_counted(task, folder):
    """Refit reads the 64 calibration images in each evaluation; candidates with one width are evaluated once."""
    found = search(trained_of(task, folder), agent_of(), folder)
    assert {scored.widths for scored in found.history} == {(12,)}
    assert found.examples == 287 + 64 + 64 * (3 + 5)
    result = deliver(found, folder).figures
    assert (
        result["search"]["examples"] == 287 + 64 + 8 * 64 and result["search"]["evaluations"] == STARTS + 2 * EPISODES
    )


def test_candidates_are_scored_on_some_of_the_holdout_and_the_few_that_are_left_on_all_of_it(task, folder):
    """The same examples for all, chosen at random: a holdout may be sorted by class."""
    trained = trained_of(task, folder, examples=50)
    problem = begin(trained, agent_of(), folder).problem
    assert {scored.seen for scored in problem.history} == {50} and len(task.data.holdout) == 287
    assert problem.history[0].examples == 50 + 64 == problem.evaluation_examples
    first, again, last = trained.evaluator(), trained.evaluator(), trained.final_evaluator()
    assert torch.equal(first.holdout.targets, again.holdout.targets)
    assert not torch.equal(first.holdout.targets, task.data.holdout.targets[:50])
    assert len(last.holdout) == 287 and last.pruner is trained.final_pruner
    assert len(trained_of(task, folder, examples=None).evaluator().holdout) == 287


def test_a_short_training_of_candidates_is_counted(task, folder):
    """Three steps of 64 images more an evaluation, each as dear as three forward passes."""
    assert task.data.batch_size == 64
    problem = begun(task, folder, finetune_steps=3).problem
    assert problem.history[0].examples == 287 + 64 + 3 * 3 * 64 == problem.evaluation_examples
    assert problem.spent == 1 + 6  # 512 images for the sensitivity and refit, of 927 an evaluation


def test_no_more_images_are_counted_than_there_are_to_train_on(task, folder):
    """A batch of 5,000 of the 1,150 training images takes all of them."""
    trained = trained_of(task, folder, finetune_steps=1, evaluations=30)
    task.data.batch_size = 5000
    problem = begin(trained, agent_of(), folder).problem
    assert problem.history[0].examples == 287 + 64 + 3 * len(task.data.train) == problem.evaluation_examples


@pytest.mark.parametrize("options", [{"sensitivity": None}, {"reads_sensitivity": False}])
def test_without_a_sensitivity_there_is_nothing_to_read_and_no_proxy(task, folder, options):
    checked, agent = checked_of(task, evaluations=1 + 4 + 2 * EPISODES, **options), agent_of()
    assert checked.job.iterations(agent_of()) == 2
    found = search(train(checked, folder), agent, folder)
    assert agent.proxy is None and agent.trainer.current_epoch == 2
    assert proposers(found) == [*STARTING] + [AGENT] * 2 * EPISODES
    assert found.evaluations == 13 and found.sensitivity is None
    assert found.examples == 64 + sum(scored.examples for scored in found.history)  # recorded for refit


def test_a_policy_for_all_budgets_delivers_what_meets_this_one(task, folder):
    """Of 24 channels 12 are within half of the MACs; up to 21 are evaluated, and none of these is delivered."""
    trained = trained_of(task, folder, macs_range=(0.4, 0.9), evaluations=STARTS + 3 * EPISODES)
    found = search(trained, agent_of(), folder)
    widths = [scored.widths[0] for scored in found.history if scored.proposer == AGENT]
    assert min(widths) >= 9 and 12 < max(widths) <= 21
    within = [scored for scored in found.history if scored.widths[0] <= 12]
    best = found.best
    assert best.widths[0] <= 12 and best.merit[0] == max(scored.merit[0] for scored in within)
    # More channels are better here; the test is that the best candidate of all is not delivered.
    assert best_of(found.history).merit[0] > best.merit[0]
    result = deliver(found, folder).figures
    assert result["pruned"]["macs_ratio"] <= 0.5 and result["pruned"]["widths"] == list(best.widths)
    assert result["search"]["agent_best"] <= best.merit[0]


def test_a_search_over_a_range_of_budgets_names_the_best_candidate_for_each_of_seven(task, folder):
    """They can be pruned from the result, and a search that is opened again has the same ones."""
    options = {"macs_range": (0.3, 0.9), "surrogate": None, "evaluations": STARTS + 2 * EPISODES + LAST}
    found = search(trained_of(task, folder, **options), agent_of(), folder)
    assert [*found.front] == [0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9] and found.evaluations <= STARTS + 2 * EPISODES + LAST
    result = deliver(found, folder).figures
    front = result["search"]["front"]
    assert all(row["macs_ratio"] <= row["macs_budget"] for row in front)
    scores = [row["top1_search"] for row in front]
    assert scores == sorted(scores) and result["pruned"]["top1_search_before"] >= scores[2]
    graph = found.trained.job.graph
    assert as_widths(graph, read_widths(folder.result, 0.7)).tolist() == [front[4]["widths"]["1"]]
    assert as_widths(graph, read_widths(folder.result)).tolist() == result["pruned"]["widths"]
    # A run that was interrupted while the last ones were scored ends alike.
    lines = folder.journal.read_text().splitlines(keepends=True)
    assert len(lines) > STARTS - TABLE + 2 * EPISODES
    folder.journal.write_text("".join(lines[: STARTS - TABLE + 2 * EPISODES]))
    again = search(trained_of(task, folder, **options), agent_of(), folder)
    assert again.evaluations == found.evaluations and len(folder.journal.read_text().splitlines()) == len(lines)
    assert {macs: item.widths for macs, item in again.front.items()} == {
        macs: item.widths for macs, item in found.front.items()
    }


def test_a_search_over_a_range_keeps_evaluations_for_its_end(task):
    options = {"macs_range": (0.3, 0.9), "surrogate": None}
    assert checked_of(task, evaluations=STARTS + 8 + LAST, **options).job.iterations(agent_of()) == 2
    with pytest.raises(UserError, match=r"at least 20 are needed, 16 for the 6 .* and the 8 last ones, and"):
        checked_of(task, evaluations=STARTS + EPISODES + LAST - 1, **options).job.iterations(agent_of())


def test_a_method_without_an_agent_searches_and_is_delivered(task, folder, monkeypatch):
    """It spends what there is to spend, and its journal spares it the work the second time."""
    found = search(trained_of(task, folder, evaluations=9), "random", folder)
    assert set(proposers(found)) == {*STARTING, "random"} and found.evaluations == 9 and found.episodes is None
    lines = folder.journal.read_text().splitlines()
    monkeypatch.setattr(searching, "time", SimpleNamespace(perf_counter=lambda: 0.0))  # all the work is spared
    again = search(trained_of(task, folder, evaluations=9), "random", folder)
    assert [item.widths for item in again.history] == [item.widths for item in found.history]
    assert again.seconds == pytest.approx(sum(item.seconds for item in found.history)) and again.seconds > 0
    assert folder.journal.read_text().splitlines() == lines
    with pytest.raises(UserError, match="by is 'luck'"):
        search(trained_of(task, folder), "luck", folder)


def test_a_search_does_not_go_on_with_another_holdout(task, folder):
    """A data module whose split is random in every `setup` has another one."""
    first = trained_of(task, folder, evaluations=9)
    search(first, "random", folder)
    held = task.data.holdout
    for other in (held.subset(torch.arange(len(held)).flip(0)), ImageSet(held.images + 1, held.labels)):
        task.data._splits = task.data._splits._replace(holdout=other)
        with pytest.raises(UserError, match=r"line 1 was changed, or is of another network, holdout or r"):
            search(trained_of(task, folder, evaluations=9), "random", folder)


def test_processes_with_different_holdouts_are_refused(task, monkeypatch):
    checked = checked_of(task)
    monkeypatch.setattr("gnnrl_lightning.job.trained.of_all", lambda value: [value, "another"])
    with pytest.raises(UserError, match="each process has held out other examples of digits: give the generator"):
        train(checked)


def test_a_method_that_asks_for_no_candidate_is_the_users_error(task, folder):
    def idle(problem, seed):
        """Leaves all evaluations."""

    with pytest.raises(UserError, match="the search has asked for no candidate within the budget: expected at least"):
        search(trained_of(task, folder), idle, folder)


def test_one_candidate_is_delivered_without_the_uniform_one(task, folder):
    found = search(trained_of(task, folder), "greedy", folder)
    assert proposers(found) == ["greedy"] and found.uniform is None and found.sensitivity is not None
    result = deliver(found, folder).figures
    assert "uniform" not in result and result["search"]["found_by"] == "greedy"
    assert result["search"]["agent_best"] is None and result["search"]["proxy"] is None


def test_what_is_delivered_is_repaired_on_more_images(task, folder):
    trained = trained_of(task, folder, delivery={"calibration_examples": 200})
    pruner = trained.final_pruner
    assert (len(trained.pruner.calibration), len(pruner.calibration)) == (64, 200)
    assert pruner.scores is trained.pruner.scores and pruner.repair == "refit"
    everything = trained_of(task, folder, delivery={"calibration_examples": 10**6}).final_pruner
    assert len(everything.calibration) == len(task.data.train)
    assert checked_of(task).job.options.delivery.calibration_examples == 4096
    other = trained_of(task, folder, delivery={"calibration_examples": 10, "repair": "none"}).final_pruner
    assert (len(other.calibration), other.repair, other.dtype) == (10, "none", torch.float32)


def test_a_policy_is_made_before_anything_is_scored(task, folder):
    """In an environment of the same states as the one in which it learns."""
    checked, agent = checked_of(task), agent_of()
    checked.prepare(agent)
    policy, sizes, first = agent.policy, agent.env.state_dim, agent.env.initial_action
    begin(train(checked, folder), agent, folder)
    assert agent.policy is policy
    assert agent.env.state_dim == agent.proxy.state_dim == sizes and agent.env.initial_action == first


def test_a_policy_that_cannot_be_made_is_the_users_error(task):
    def broken(state_dim, action_dim):
        raise ZeroDivisionError("no heads\nand no tails")

    with pytest.raises(UserError, match=r"^model.make_policy cannot be made: no heads and no tails; change it"):
        checked_of(task).prepare(GNNRL(make_policy=broken))


def test_checking_writes_nothing_and_leaves_no_trace_in_the_random_state(task, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = torch.get_rng_state()
    checked_of(task)
    assert torch.equal(torch.get_rng_state(), before)
    assert list(tmp_path.iterdir()) == []


def test_training_leaves_the_checked_network_as_it_was(task, folder):
    checked = checked_of(task)
    before = checked.network[1].weight.clone()
    trained = train(checked, folder)
    assert torch.equal(checked.network[1].weight, before)
    assert not torch.equal(trained.network[1].weight, before)


def test_seed_gives_the_weights(task):
    torch.manual_seed(1)
    first = task.build()
    torch.manual_seed(2)
    assert torch.equal(first[1].weight, task.build()[1].weight)


def test_the_whole_job(task, folder, monkeypatch):
    """Only deliver reads test images, and uniform pruning is fine-tuned exactly like the pruned network."""
    phases, reads = [], []

    def trainers(phase):
        def make(**flags):
            phases.append((phase, flags))
            return quiet_trainer(**flags)

        return make

    read = Digits.test.fget
    monkeypatch.setattr(Digits, "test", property(lambda data: reads.append(1) or read(data)))
    trained, agent = trained_of(task, folder, trainers=trainers), agent_of()
    searching = begin(trained, agent, folder)
    assert searching.status() == SearchStatus(
        STARTS, searching.best().merit[0] / 100 - 1, {"macs": 0.5}
    ) and searching.best() == best_of(searching.problem.history)
    found = search(trained, agent, folder)
    assert not reads
    assert found.evaluations == TABLE + len(found.history) == 16
    delivered = deliver(found, folder)
    result = delivered.figures
    assert reads
    assert [phase for phase, _ in phases] == ["dense", "uniform", "pruned"]
    assert phases[1][1] == phases[2][1]
    dense = 64 * 24 + 24 * 10
    assert result["dense"]["macs"] == dense
    assert result["uniform"]["widths"] == [12] and result["uniform"]["macs"] == 64 * 12 + 12 * 10 == dense // 2
    assert result["search"]["evaluations"] == 16 and result["search"]["seed"] == 3
    assert json.loads(folder.result.read_text()) == result
    (group,) = trained.job.graph.groups
    assert delivered.widths == {group.name: 12} and delivered.network[1].weight.shape == (12, 64)
    assert "Flat on digits, budget: macs 0.5" in str(delivered) and "uniform" in str(delivered)


@pytest.mark.parametrize("stage", ["checked", "trained", "searched", "delivered"])
def test_parts_are_frozen(task, folder, stage):
    stages = {"checked": checked_of(task)}
    if stage != "checked":
        stages["trained"] = train(stages["checked"], folder)
    if stage in ("searched", "delivered"):
        stages["searched"] = search(stages["trained"], "uniform", folder)
    if stage == "delivered":
        stages["delivered"] = deliver(stages["searched"], folder)
    found = stages[stage]
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(found, dataclasses.fields(found)[0].name, None)


def test_a_checkpoint_is_not_trained_again(task, tmp_path, folder):
    trained = trained_of(task, folder)
    weights = folder.weights("dense")
    given = Task(task.network, task.data, str(weights))
    loaded = train(checked_of(given, trainers=lambda phase: pytest.fail(phase)))
    assert torch.equal(loaded.network[1].weight, trained.network[1].weight)
    with pytest.raises(UserError, match=r"flat_networks.Flat is not trained: give its checkpoint, or a folder"):
        train(checked_of(task))


def test_networks_without_prunable_channels_are_refused(task):
    with pytest.raises(UserError, match=r"flat_networks.Linear has no channels that can be pruned"):
        checked_of(Task(NetworkSpec("flat_networks.Linear"), task.data))


def test_images_are_fetched_before_they_are_read(task, monkeypatch):
    calls = []
    monkeypatch.setattr(Digits, "prepare_data", lambda data: calls.append("prepare_data"))
    setup = Digits.setup
    monkeypatch.setattr(Digits, "setup", lambda data, stage=None: calls.append("setup") or setup(data, stage))
    task.build()
    assert calls == ["prepare_data", "setup"]


def test_the_dense_network_teaches_the_pruned_ones(task, folder):
    finetuning = TrainingOptions(epochs=1, learning_rate=0.05, distillation_weight=1.0)
    given = options_of(
        evaluations=STARTS + EPISODES,
        calibration_examples=64,
        pretraining=TrainingOptions(epochs=1),
        finetuning=finetuning,
    )
    taught = []
    original = task.train

    def record(network, options, trainer, teacher=None, checkpoint=None):
        taught.append(teacher)
        return original(network, options, trainer, teacher, checkpoint)

    object.__setattr__(task, "train", record)
    trained = train(check(task, Budget(macs=0.5), given), folder)
    deliver(search(trained, agent_of(), folder), folder)
    assert [each and each.network for each in taught] == [None, trained.network, trained.network]


def test_there_is_no_teacher_for_the_dense_network():
    with pytest.raises(UserError, match="needs a teacher"):
        Options(pretraining=TrainingOptions(distillation_weight=0.5))


def test_candidates_race_unless_each_has_a_budget_of_its_own(task, folder):
    def probability(episode=None, **options):
        trained = trained_of(task, folder, **options)
        return trained.journalled(Journal(), episode).evaluator.drop_probability

    assert probability(drop_probability=0.1) == 0.1
    assert probability(EpisodeOptions(macs_range=(0.3, 0.7)), drop_probability=0.1) is None
    assert probability(racing=False) is None
    assert probability(macs_range=(0.3, 0.7)) is None


def test_precision_and_batch_size_are_measured_on_request(task, folder, monkeypatch):
    asked = []

    def tune(network, layers, inputs, objective, sizes):
        asked.append((len(inputs), sizes))
        return Tuned("bf16", sizes[-1], {"bf16": 0.1})

    monkeypatch.setattr(deciding, "tune", tune)
    for given, expected in (("auto", 512), (40, 40)):
        trained = trained_of(task, folder, precision="auto", batch_size=given)
        scoring = trained.job.options.scoring
        assert (scoring.precision, scoring.batch_size) == ("bf16", expected)
        evaluator = trained.evaluator()
        assert (evaluator.dtype, evaluator.batch_size) == (torch.bfloat16, expected)
    assert asked == [(287, (64, 128, 256, 512)), (40, (40,))]
    checked = checked_of(task)
    assert not checked.measured and train(checked, folder).evaluator().batch_size == task.data.eval_batch_size
    assert trained_of(task, folder, batch_size=9).evaluator().batch_size == 9


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_whole_run_on_a_gpu(task, folder):
    trained = trained_of(task, folder, device="cuda")
    found = search(trained, agent_of(), folder)
    homes = {tensor.device.type for tensor in trained.network.state_dict().values()}
    homes |= {inputs.device.type for inputs, _ in trained.evaluator().batches}
    assert homes == {"cuda"}
    result = deliver(found, folder).figures
    assert result["pruned"]["macs_ratio"] <= 0.5 and (folder.pruned / "model.pt2").is_file()
