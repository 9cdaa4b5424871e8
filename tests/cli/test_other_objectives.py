"""The experiments with other objectives, whole and tiny."""

import json
import math
from pathlib import Path

import pytest

from gnnrl_lightning.cli import main
from gnnrl_lightning.evaluation.journal import Journal

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
SEGMENTATION = {"mean_iou", "pixel_accuracy", "cross_entropy"}
REGRESSION = {"rmse", "mean_absolute_error"}


@pytest.mark.parametrize(
    ("name", "figures", "data", "better"),
    [
        ("segmentation", SEGMENTATION, ["--data.init_args.canvases", "100"], max),
        ("regression", REGRESSION, [], min),
    ],
)
def test_the_whole_job(tmp_path, capsys, name, figures, data, better):
    configs = [part for file in (name, "debug") for part in ("--config", str(EXPERIMENTS / f"{file}.yaml"))]
    place = ["--run.root", str(tmp_path), "--run.name", "run", "--search.evaluations", "60", "--episode.reward", "null"]
    place += ["--delivery.fastest_of", "0"]
    main(["fit", *configs, *data, *place])
    printed = capsys.readouterr().out
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    record = result["objective"]
    assert record["primary"] in figures and record["label"] in printed
    for row in ("uniform", "pruned"):
        for figure in figures:
            for stage in ("search", "test_before", "test_after"):
                assert math.isfinite(result[row][f"{figure}_{stage}"])
        assert math.isfinite(result[row]["divergence_search"]) and result[row]["macs_ratio"] <= 0.5
    lines = Journal(tmp_path / "run" / "journal.jsonl").read()
    key = f"{record['primary']}_search"
    finalists = [line["scores"][record["primary"]] for line in lines if not line["dropped"]]
    assert result["pruned"][key] == better(finalists)  # the best one is delivered, whichever direction is better
    assert {*lines[0]["scores"]} == {*figures, "divergence"}
    main(["test", *configs, *data, "--artifact", str(tmp_path / "run" / "pruned")])
    after = f"{result['pruned'][record['primary'] + '_test_after']:.{record['digits']}f}"
    assert f"{record['label']} on the test examples: {after}" in capsys.readouterr().out
