"""A metric of a user's own, by import path from YAML: it is in figures, journal, table and observations."""

import json

import pytest
import yaml

from gnnrl_lightning.cli import main
from gnnrl_lightning.rl.env import pruning
from tests.cli.refused import assert_refused

METRIC = """
from gnnrl_lightning.cost.metrics import Metric


def energy(graph):
    return lambda widths: 3.0 * widths[..., 0] + 2.5 * widths[..., 1]


def bumpy(graph):
    # Widths that are no multiple of 3 cost more.
    return lambda widths: (widths + 2.0 * (widths % 3 > 0)).sum(-1)


def broken(graph):
    return lambda widths: widths.beauty


joules = Metric(energy, unit="J", exact=True, monotone=True)
"""
QUICK = ["--pretraining.epochs", "0", "--finetuning.epochs", "0", "--run.threads", "1", "--trainer.max_epochs", "1"]
IMAGINED = ["--episode.surrogate", "null"]


@pytest.fixture(scope="module")
def metrics(workplace):
    (workplace / "own_metrics.py").write_text(METRIC)
    return workplace


def test_a_fit_with_metrics_of_ones_own(metrics, capsys, monkeypatch):
    """Dense: 3 * 8 + 2.5 * 12 = 54 of energy; 8 + 12, and 2 more for 8, of the bumpy one."""
    budget = {"macs": "60%", "activations": 0.9, "limits": {"own_metrics.joules": "40.5 J", "own_metrics.bumpy": "80%"}}
    (metrics / "own.yaml").write_text(yaml.safe_dump({"budget": budget}))
    observed = []
    observe = pruning.VectorPruningEnv._observe
    monkeypatch.setattr(
        pruning.VectorPruningEnv, "_observe", lambda env: observed.append(observe(env)) or observed[-1], raising=True
    )
    main(["fit", "--config", "small.yaml", "--config", "own.yaml", *QUICK, *IMAGINED, "--run.name", "own_metrics"])
    text = capsys.readouterr().out
    folder = metrics / "runs" / "own_metrics"
    result = json.loads((folder / "result.json").read_text())
    names = ["macs", "params", "activations", "own_metrics.bumpy", "own_metrics.joules"]
    multiple = {"channel_multiple": 1, "min_width": 1}
    assert result["budget"] == {"macs": "60%", "activations": 0.9, **budget["limits"], **multiple}
    assert [name for name in result["dense"] if name in names] == names
    assert result["dense"]["own_metrics.joules"] == 54 and result["dense"]["own_metrics.bumpy"] == 22
    journal = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
    for row in (result["uniform"], result["pruned"], *(line | line["costs"] for line in journal)):
        first, second = row["widths"]
        assert row["own_metrics.joules"] == 3 * first + 2.5 * second <= 40.5
        assert row["own_metrics.bumpy"] == sum(n + 2 * (n % 3 > 0) for n in row["widths"]) <= 0.8 * 22
        assert row["own_metrics.joules_ratio"] == row["own_metrics.joules"] / 54
        assert row["macs_ratio"] <= 0.6 and row["activations_ratio"] <= 0.9
    assert all(name in text for name in ("activations 0.9", "bumpy", "joules"))
    # Two widths, five limits, the steps left and two effects of each width; and two proposed widths, once the
    # sensitivity is measured.
    assert [rows.shape[1] for rows in observed][-1] == 2 + 5 + 1 + 2 * 2 + 2
    assert {rows.shape[1] for rows in observed} == {2 + 5 + 1 + 2 * 2, 2 + 5 + 1 + 2 * 2 + 2}
    assert observed[-1][0, 2:7].tolist() == pytest.approx([0.6, 1, 0.9, 0.8, 0.75])


def test_inspect_shows_metrics_of_ones_own(metrics, capsys):
    own = ["--budget.limits", "{own_metrics.energy: 0.5}"]
    main(["inspect", "--config", "small.yaml", *own, "--json", "own.json"])
    found = json.loads((metrics / "own.json").read_text())
    assert found["own_metrics.energy"] == 54 and found["smallest_own_metrics.energy"] == 5.5
    assert "activations" in capsys.readouterr().out


def test_limits_on_the_command_line(metrics, capsys):
    with pytest.raises(SystemExit):
        main(["fit", "--config", "small.yaml", "--budget.macs", "50%", "--budget.activations", "2k", "--print_config"])
    budget = yaml.safe_load(capsys.readouterr().out)["budget"]
    assert (budget["macs"], budget["params"], budget["activations"]) == ("50%", None, "2k")


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ("{own_metrics.broken: 0.5}", "metric own_metrics.broken fails: 'Tensor' object has no attribute 'beauty'"),
        ("{own_metrics.none: 0.5}", "budget 'own_metrics.none' cannot be imported"),
        ("{own_metrics.energy: 1}", "budget.own_metrics.energy is 1, which is neither a share nor absolute"),
        ("{own_metrics.energy: 1.5%}", "budget.own_metrics.energy is 0.015 .*, which cannot be reached"),
        (
            "{energi: 0.5}",
            "budget is 'energi': expected one of macs, params, nonzero, activations, latency, or",
        ),
    ],
)
def test_what_is_wrong_with_ones_own_metric_is_said_in_one_line(metrics, capsys, limits, message):
    assert_refused(capsys, metrics, ["--budget.limits", limits], message)
