import csv
import json
from dataclasses import replace

import pytest
import torch

import gnnrl_lightning
from gnnrl_lightning.cost.budget import Budget
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.rl.state.builder import StateBuilder
from gnnrl_lightning.speed.backends import BACKENDS
from gnnrl_lightning.speed.grids import wanted_grids
from gnnrl_lightning.speed.latency import (
    NEAR,
    NETWORKS,
    latency_of_record,
    measure_latency,
    proposals_near,
    some_widths,
)
from gnnrl_lightning.speed.options import LatencyOptions
from gnnrl_lightning.speed.table import write_template
from tests.support.fake_timer import RAN, FakeTimer, linear_ms, network_ms
from tests.support.two_hidden import TwoHidden

EXAMPLE = torch.zeros(1, 1, 8, 8)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return TwoHidden().eval()


@pytest.fixture(scope="module")
def graph(network):
    return gnnrl_lightning.trace(network, EXAMPLE)


def options(folder=None, **given):
    return LatencyOptions(threads=1, cache=None if folder is None else str(folder), **given)


def truth(a, b):
    return 0.05 + 1.1 * (linear_ms(64, a) + linear_ms(a, b) + linear_ms(b, 10))


def test_whole_networks_are_predicted(graph, network):
    found = measure_latency(graph, network, EXAMPLE, options(), FakeTimer())
    for widths in ([24, 16], [20, 9], [3, 16], [1, 1]):
        assert float(found.model(torch.tensor(widths))) == pytest.approx(truth(*widths), rel=1e-6)
    assert max(map(abs, found.errors)) < 1e-6 and found.summary()["networks"] == len(found.milliseconds) - 1
    assert "predicted with a mean error of 0.0%" in str(found) and "1 threads" in str(found)


def test_two_networks_are_too_few_for_an_error(graph, network):
    found = measure_latency(graph, network, EXAMPLE, options(), FakeTimer())
    few = replace(found, widths=found.widths[:2], milliseconds=found.milliseconds[:2])
    assert "is predicted from 2 networks; the dense one takes" in str(few) and few.summary()["mean_error"] is None


def test_a_measured_graph_has_latency_as_a_metric_of_budgets(graph, network):
    with pytest.raises(UserError, match=r"latency of this network has not been measured"):
        graph.project(graph.widths, latency=0.6)
    assert "latency" not in graph.metrics
    found = measure_latency(graph, network, EXAMPLE, options(), FakeTimer())
    measured = graph.with_latency(found.model)
    for limit in (0.6, "60%", f"{0.6 * truth(24, 16)} ms"):
        widths = measured.project(measured.widths, latency=limit)
        assert truth(*widths.tolist()) <= 0.6 * truth(24, 16) * (1 + 1e-6)
        for group in range(2):  # and no group could be wider
            wider = widths + torch.eye(2, dtype=torch.int64)[group]
            assert truth(*wider.tolist()) > 0.6 * truth(24, 16)
    both = measured.project(measured.widths, latency=0.9, macs=0.3)
    assert int(measured.cost.macs(both)) <= 0.3 * int(measured.cost.macs(measured.widths))
    assert "latency" in measured.metrics and "latency" in repr(measured) and "latency" not in graph.metrics


def test_operators_are_measured_once(graph, network, tmp_path):
    first, second, third, fourth = (FakeTimer() for _ in range(4))
    found = measure_latency(graph, network, EXAMPLE, options(tmp_path), first)
    again = measure_latency(graph, network, EXAMPLE, options(tmp_path), second)
    assert first.cells > 0 and second.cells == 0
    assert torch.equal(found.model(found.widths), again.model(found.widths))
    measure_latency(graph, network, EXAMPLE, options(tmp_path, batch_size=1), third)
    measure_latency(graph, network, EXAMPLE, options(tmp_path, precision="bf16"), fourth)
    assert third.cells == fourth.cells == first.cells
    assert len([*tmp_path.glob("latency-*.json")]) == 3


@pytest.mark.parametrize("backend", ["eager", "onnxruntime", "compile"])
def test_back_ends_have_tables_of_their_own_by_version(graph, network, tmp_path, monkeypatch, backend):
    timers = [FakeTimer() for _ in range(3)]
    found = measure_latency(graph, network, EXAMPLE, options(tmp_path, backend=backend), timers[0])
    (file,) = tmp_path.glob("latency-*.json")
    settings = json.loads(file.read_text())["settings"]
    assert settings["backend"] == backend and settings["versions"]["torch"] == torch.__version__
    assert ("onnxruntime" in settings["versions"]) == (backend == "onnxruntime")
    assert found.summary()["versions"] == settings["versions"]
    measure_latency(graph, network, EXAMPLE, options(tmp_path, backend=backend), timers[1])
    newer = replace(BACKENDS[backend], versions=lambda: {"onnxruntime": "9.0"})
    monkeypatch.setitem(BACKENDS._rows, backend, newer)
    measure_latency(graph, network, EXAMPLE, options(tmp_path, backend=backend), timers[2])
    assert [timer.cells > 0 for timer in timers] == [True, False, True]


def test_a_run_that_is_resumed_has_the_operators_of_its_back_end(graph, network):
    """ONNX Runtime's are chains; linear layers take the time here, whatever joins them."""
    chosen = options(backend="onnxruntime")
    found = measure_latency(graph, network, EXAMPLE, chosen, FakeTimer())
    assert any(use.key == "linear bias True + relu" for use in found.model.uses)
    again = latency_of_record(json.loads(json.dumps(found.as_record())), graph, network, chosen)
    assert torch.equal(again.model(found.widths), found.model(found.widths))
    assert float(again.model(torch.tensor([20, 9]))) == pytest.approx(truth(20, 9), rel=1e-6)


def test_a_wider_network_is_measured_in_the_same_cache(graph, network, tmp_path):
    measure_latency(graph, network, EXAMPLE, options(tmp_path), FakeTimer())
    wide = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 40), torch.nn.ReLU(), torch.nn.Linear(40, 10))
    traced, timer = gnnrl_lightning.trace(wide, EXAMPLE), FakeTimer()
    found = measure_latency(traced, wide, EXAMPLE, options(tmp_path), timer)
    assert timer.cells > 0 and float(found.model(traced.widths)) == pytest.approx(network_ms(wide))


def test_a_cache_that_cannot_be_written_is_refused(graph, network, tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "folder"):
        timer = FakeTimer()
        with pytest.raises(UserError, match=r"latency.cache .* cannot be written .* give another folder, or null"):
            measure_latency(graph, network, EXAMPLE, options(folder), timer)
        assert timer.cells == timer.networks_measured == 0  # before minutes are spent


def test_measurements_survive_as_json(graph, network):
    found = measure_latency(graph, network, EXAMPLE, options(), FakeTimer())
    record = json.loads(json.dumps(found.as_record()))
    again = latency_of_record(record, graph, network, found.options)
    assert again.model.correction == found.model.correction
    assert torch.equal(again.model(found.widths), found.model(found.widths))


def test_what_is_learnt_from_a_candidate_holds_for_it(graph, network):
    """It took a fifth longer than predicted; the dense network did not."""
    found = measure_latency(graph, network, EXAMPLE, options(), FakeTimer())
    widths = torch.tensor([10, 9])
    learnt = found.learnt(widths, 1.2 * truth(10, 9))
    assert float(learnt.model(widths)) == pytest.approx(1.2 * truth(10, 9), rel=0.03)
    assert float(learnt.model(graph.widths)) == pytest.approx(truth(24, 16), rel=0.02)


def test_networks_that_meet_the_budget_are_measured_beside_the_dense_one(graph, network):
    """By then, the machine takes twice as long."""

    class Slower(FakeTimer):
        def networks(self, networks):
            self.calls = getattr(self, "calls", 0) + 1
            return [self.calls * each for each in super().networks(networks)]

    limit = 0.4 * truth(24, 16)
    found = measure_latency(graph, network, EXAMPLE, options(), Slower(), budget=Budget(latency=0.4))
    near = found.widths[NETWORKS:]
    assert 2 <= len(near) <= NEAR and len(near) == len(near.unique(dim=0))
    assert [truth(*row) for row in near.tolist()] == pytest.approx(list(found.milliseconds[NETWORKS:]))
    assert all(0.8 * limit < truth(*row) <= limit * (1 + 1e-6) for row in near.tolist())
    assert found.summary()["networks"] == NETWORKS - 1 + len(near)


def test_the_widths_of_measured_networks_are_those_that_may_be_chosen(graph, network):
    """Processors may compute multiples of 8 in another way than all others."""
    found = measure_latency(
        graph, network, EXAMPLE, options(), FakeTimer(), budget=Budget(latency=0.4, channel_multiple=8)
    )
    assert bool((found.widths % 8 == 0).all()) and len(found.widths) == len(found.milliseconds)
    measured_open = Budget(latency=0.4, channel_multiple="auto")
    found = measure_latency(graph, network, EXAMPLE, options(), FakeTimer(), budget=measured_open)
    assert bool((found.widths % 8 != 0).any())


def test_proposals_near_a_budget_lack_more_and_more_groups():
    widths, removable = torch.tensor([16] * 6), torch.tensor([True] * 5 + [False])
    found = proposals_near(widths, removable)
    gone = (found == 0).sum(1)
    assert gone[0] == 0 and gone[-1] == 3 and bool((gone.diff() >= 0).all())
    assert bool((found[:, 5] > 0).all()) and len({tuple(row) for row in (found == 0).tolist()}) > 2
    assert bool((proposals_near(widths, None) > 0).all())


def test_networks_of_all_widths_are_measured(graph):
    widths = some_widths(graph)
    assert torch.equal(widths[0], graph.widths) and torch.equal(widths, some_widths(graph))
    keep = (widths / graph.widths).mean(-1)
    assert bool((widths >= 1).all()) and bool((widths <= graph.widths).all()) and float(keep.min()) < 0.45
    aligned = some_widths(graph, 10)
    assert bool(((aligned % 10 == 0) | (aligned == graph.widths)).all()) and 3 <= len(aligned) <= NETWORKS
    assert torch.equal(aligned[0], graph.widths) and len(aligned) == len(aligned.unique(dim=0))


def filled(path, graph, network, change=lambda row: row):
    """A user's table: the template of the network with times."""
    write_template(path, wanted_grids(graph, network)[1])
    rows = list(csv.DictReader(path.read_text().splitlines()))
    for row in rows:
        linear = row["operator"].startswith("linear")
        row["milliseconds"] = linear_ms(int(row["inputs"]), int(row["outputs"])) if linear else 0.0
    rows = [row for row in map(change, rows) if row is not None]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_a_table_of_another_machine_is_read_and_nothing_is_measured(graph, network, tmp_path):
    path = filled(tmp_path / "phone.csv", graph, network)
    found = measure_latency(graph, network, EXAMPLE, options(table=str(path)), timer=None)
    assert float(found.model(torch.tensor([24, 16]))) == pytest.approx((truth(24, 16) - 0.05) / 1.1)
    assert found.milliseconds == () and found.errors == [] and "not measured" in str(found)
    as_json = tmp_path / "phone.json"
    as_json.write_text(json.dumps({"operators": found.as_record()["operators"]}))
    again = measure_latency(graph, network, EXAMPLE, options(table=str(as_json)))
    assert torch.equal(again.model(graph.widths), found.model(graph.widths))


def without(**values):
    return lambda row: None if all(row[name] == value for name, value in values.items()) else row


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without(inputs="24", outputs="16"), r"lacks the row for 24 inputs and 16 outputs"),
        (lambda row: None if row["operator"] == "relu" else row, r"no row for 'relu'"),
        (
            lambda row: {**row, "milliseconds": "fast"},
            r"could not convert .*: expected CSV with the columns operator, ",
        ),
        (lambda row: {**row, "milliseconds": -1.0}, r"negative or not finite"),
        (lambda row: {**row, "outputs": "1"}, r"has two rows for"),
        (lambda row: {"name": 1}, r"no table of operators \('operator'\)"),
        (
            lambda row: None if row["operator"] == "relu" and row["outputs"] in ("24", "16") else row,
            r"'relu' ends at 0 inputs and 8 outputs, the network has 0 and 24: add rows",
        ),
    ],
)
def test_bad_tables_are_refused(graph, network, tmp_path, change, message):
    path = filled(tmp_path / "phone.csv", graph, network, change)
    with pytest.raises(UserError, match=message):
        measure_latency(graph, network, EXAMPLE, options(table=str(path)))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"batch_size": 0}, "latency.batch_size is 0: expected at least 1"),
        ({"threads": 0}, "latency.threads is 0: expected a whole number from 1 to 4096, or null"),
        ({"precision": "16"}, "latency.precision is '16': expected one of 32, bf16"),
        ({"backend": "fast"}, "latency.backend is 'fast'"),
    ],
)
def test_bad_options_are_refused(given, message):
    with pytest.raises(UserError, match=message):
        LatencyOptions(**given)


def test_a_back_end_of_the_user_runs_operators_and_networks(graph, network):
    found = measure_latency(graph, network, EXAMPLE, options(backend="tests.support.fake_timer.counted"))
    assert sum(isinstance(each, TwoHidden) for each in RAN) >= len(found.milliseconds)
    assert any(isinstance(each, torch.nn.Linear) for each in RAN) and found.summary()["backend"].endswith("counted")


def test_latency_is_a_feature_of_states_as_the_other_metrics_are(graph, network):
    """Four columns more: the saving, the cost, its limit and the excess; and one for the costs of stages."""
    measured = graph.with_latency(measure_latency(graph, network, EXAMPLE, options(), FakeTimer()).model)
    plain = StateBuilder(measured)
    builder = StateBuilder(measured, metrics=dict.fromkeys(("macs", "params", "latency")))
    state = builder(graph.widths[None], torch.ones(1, 3))
    assert builder.state_dim == plain.state_dim + 5 == state.x.shape[1] and bool(state.x.isfinite().all())


def test_real_networks_are_measured_here(graph, network):
    """Times themselves are not tested."""
    found = measure_latency(graph, network, EXAMPLE, options(batch_size=2))
    assert all(ms > 0 for ms in found.milliseconds) and float(found.model(graph.widths)) > 0
    assert found.machine["threads"] == 1 and len(found.milliseconds) == len(found.widths)
