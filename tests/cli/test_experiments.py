from pathlib import Path

import pytest
import torch
import yaml

from gnnrl_lightning import trace
from gnnrl_lightning.candidates.options import CandidateOptions
from gnnrl_lightning.cli.experiments import FOLDER, with_experiments
from gnnrl_lightning.cost.budget import Budget
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.job.options import Options
from gnnrl_lightning.networks import mobilenet_v2
from gnnrl_lightning.search.options import SearchOptions

ROOT = Path(__file__).parents[2]


def test_names_of_experiments_stand_for_their_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    digits = str(FOLDER / "digits.yaml")
    assert with_experiments(["fit", "--config", "digits"]) == ["fit", "--config", digits]
    assert with_experiments(["fit", "-c", "digits", "--config=debug"])[2:] == [digits, f"--config={FOLDER}/debug.yaml"]
    (tmp_path / "digits").write_text("run: {name: mine}\n")  # a file of the user's comes first
    assert with_experiments(["fit", "--config", "digits"])[2] == "digits"
    assert with_experiments(["fit", "--config", "run: {name: x}"])[2] == "run: {name: x}"


@pytest.mark.parametrize("name", ["digts", "none.yaml", "*", "../experiments/none"])
def test_what_is_neither_is_refused(name):
    with pytest.raises(UserError, match=r"there is no such file.*: expected a YAML file, or one of base, "):
        with_experiments(["fit", "--config", name])


def test_a_folder_of_an_experiments_name_is_not_meant(tmp_path, monkeypatch):
    """W&B makes one, wandb/, where the first run with `--config wandb` was."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wandb").mkdir()
    assert with_experiments(["fit", "--config", "wandb"])[-1] == str(FOLDER / "wandb.yaml")


def test_the_package_ships_every_experiment():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for path in (ROOT / "experiments").glob("*.yaml"):
        assert f'"experiments/{path.name}" = "gnnrl_lightning/experiments/{path.name}"' in text


def test_debug_suffices_for_any_network():
    """However many groups it has, and with a single held-out example."""
    debug = yaml.safe_load((FOLDER / "debug.yaml").read_text())
    graph = trace(mobilenet_v2(num_classes=2), torch.zeros(1, 3, 32, 32))
    assert len(graph.groups) > 20
    options = Options(search=SearchOptions(**debug["search"]), candidate=CandidateOptions(**debug["candidate"]))
    examples = options.evaluation_examples(1, 1)
    limits = Budget(macs=0.5).on(graph)
    assert options.iterations(limits, examples, debug["model"]["episodes_per_iteration"]) >= 1
