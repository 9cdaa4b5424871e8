"""Kept layers and limits reach the job and the artifact."""

import pytest
import torch

from gnnrl_lightning.artifacts import artifact
from gnnrl_lightning.cost.budget import Budget
from gnnrl_lightning.cost.ranges import GroupLimit
from gnnrl_lightning.data import Digits
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.job.checked import check
from gnnrl_lightning.job.group_options import GroupOptions
from gnnrl_lightning.job.inspection import inspect
from gnnrl_lightning.job.task import Task
from gnnrl_lightning.networks.spec import NetworkSpec
from gnnrl_lightning.search.baselines import starting_candidates
from tests.support.workplace import working_in


@pytest.fixture(scope="module", autouse=True)
def workplace(tmp_path_factory):
    with working_in(tmp_path_factory.mktemp("groups")) as folder:
        yield folder


def task(**options):
    return Task(NetworkSpec("own_networks.Small"), Digits(), groups=GroupOptions(**options))


def test_inspect_shows_what_is_kept_and_limited():
    found = inspect(task(keep=["bn1"], limits={"conv2": GroupLimit(min="25%", max=10)}).trace())
    assert found["kept"] == ["bn1"]
    rows = [(row["name"], row["width"], row["lowest"], row["highest"]) for row in found["groups"]]
    assert rows == [("conv2", 12, 3, 10)]
    frozen = {row["name"]: (row["operator"], row["reason"]) for row in found["frozen"]}
    assert frozen["conv1"] == ("keep", "kept by the user (bn1)")
    # conv1: 64 positions x 9 x 8; conv2: 9 positions x 9 x 8 x 3; classifier: 9 positions x 3 x 10
    assert found["smallest_macs"] == 64 * 9 * 8 + 9 * 9 * 8 * 3 + 9 * 3 * 10
    free = inspect(task().trace())
    assert free["kept"] == [] and [(row["lowest"], row["highest"]) for row in free["groups"]] == [(1, 8), (1, 12)]
    assert all("no longer depend on an input" in row["stays"] for row in free["groups"])


def test_a_job_keeps_to_the_limits():
    limits = check(task(limits={"conv*": GroupLimit(max="50%")}), Budget(macs=0.9)).job.limits
    assert {tuple(widths.tolist()) for widths in starting_candidates(limits.graph, limits).values()} == {(4, 6)}
    with pytest.raises(UserError, match="which cannot be reached"):
        check(task(limits={"conv*": GroupLimit(min="90%")}), Budget(macs=0.5))
    with pytest.raises(UserError, match="has no channels that can be pruned"):
        check(task(keep=["conv*"]), Budget(macs=0.5))


def test_an_artifact_is_restored_with_what_was_kept(tmp_path):
    """By a task that says nothing of it: the recipe does, and no path is imported for it."""
    made = task(keep=["torch.nn.Linear"])
    network = made.build()
    graph = made.trace(network)
    plan = graph.plan(network, graph.widths // 2)
    small, example = plan.apply(network), made.example()
    record = {"class_path": "own_networks.Small", "init_args": {}}, {}, made.data.transform_record(), {}
    written = artifact.Description(*record)
    steps = [artifact.step(graph, plan)]
    artifact.save(tmp_path, small, dense=network, steps=steps, example=example, description=written)
    (step,) = artifact.read_recipe(tmp_path)["steps"]
    assert step["keep"] == ["classifier"] and list(step["kept"]) == ["conv1"]
    restored = task().restore(tmp_path)
    with torch.inference_mode():
        assert torch.equal(restored.network(made.example(4)), small(made.example(4)))


def test_one_name_in_place_of_a_list_is_refused():
    with pytest.raises(UserError, match=r"groups.keep is 'conv1': expected a list of names, \[conv1\]"):
        GroupOptions(keep="conv1")
