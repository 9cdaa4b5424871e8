import json
from pathlib import Path

import pytest

from gnnrl_lightning.errors import UserError
from gnnrl_lightning.files import unchanged
from gnnrl_lightning.runs.folder import RunFolder
from gnnrl_lightning.versions import versions


def test_default_names_never_collide(tmp_path):
    folders = [RunFolder.create(tmp_path, experiment="digits") for _ in range(5)]
    assert len({folder.path for folder in folders}) == 5
    assert all(folder.path.is_dir() and folder.path.name.startswith("digits-2") for folder in folders)


def test_wandb_run_gives_the_name(tmp_path):
    assert RunFolder.create(tmp_path, experiment="digits", wandb_id="ab12cd").path == tmp_path / "ab12cd"
    assert RunFolder.create(tmp_path, experiment="digits", wandb_id="ab12cd").path == tmp_path / "ab12cd-2"


def test_explicit_name_wins_over_the_wandb_run(tmp_path):
    assert RunFolder.create(tmp_path, "mine", wandb_id="ab12cd").path == tmp_path / "mine"


def test_existing_explicit_folder_is_refused_and_untouched(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "result.json").write_text("{}")
    with pytest.raises(UserError, match=r"mine exists; choose another name, or replace it by overwrite"):
        RunFolder.create(tmp_path, "mine")
    assert (tmp_path / "mine" / "result.json").read_text() == "{}"


@pytest.mark.parametrize("left", [[], ["config.yaml.partial"], [".began.yaml", "checksums.json", ".lock"]])
def test_what_a_run_left_that_was_killed_as_it_began_is_no_run(tmp_path, left):
    (tmp_path / "mine").mkdir()
    for name in left:
        (tmp_path / "mine" / name).write_text("")
    folder = RunFolder.create(tmp_path, "mine")
    folder.write_config("a: 1\n")
    assert {path.name for path in folder.path.iterdir()} == {"config.yaml", ".began.yaml", "checksums.json"} | {
        *left
    } - {"config.yaml.partial"}


def test_overwrite_replaces_what_a_run_wrote_and_nothing_else(tmp_path):
    folder = RunFolder.create(tmp_path, "mine")
    folder.config.write_text("")
    folder.write_result({"a": 1})
    assert json.loads(folder.result.read_text()) == {"a": 1}
    folder.pruned.mkdir()
    (folder.pruned / "recipe.json").write_text("{}")
    notes = folder.path / "notes.txt"
    notes.write_text("keep me")
    RunFolder.create(tmp_path, "mine", overwrite=True)
    assert sorted(path.name for path in folder.path.iterdir()) == ["notes.txt"]


def test_overwriting_that_is_interrupted_leaves_the_folder_of_a_run(tmp_path, monkeypatch):
    """Otherwise it could neither be resumed nor overwritten."""
    folder = RunFolder.create(tmp_path, "mine")
    folder.write_config("a: 1\n")
    folder.checkpoints.mkdir()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("shutil.rmtree", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        RunFolder.create(tmp_path, "mine", overwrite=True)
    assert folder.config.is_file() and unchanged(folder.began)
    RunFolder.create(tmp_path, "mine", overwrite=True)
    assert not folder.occupied


def test_overwrite_leaves_a_folder_that_is_no_run(tmp_path):
    (tmp_path / "mine" / "checkpoints").mkdir(parents=True)
    with pytest.raises(UserError, match=r"mine is not the folder of a run .it has no config.yaml."):
        RunFolder.create(tmp_path, "mine", overwrite=True)
    assert (tmp_path / "mine" / "checkpoints").is_dir()


@pytest.mark.parametrize("given", ["mine/checkpoints/dense.safetensors", "mine/pruned", "other/../mine/pruned"])
def test_overwrite_refuses_to_delete_what_the_run_reads(tmp_path, given):
    RunFolder.create(tmp_path, "mine").config.write_text("")
    with pytest.raises(UserError, match=r"overwrite would delete .*mine.*, which the run reads"):
        RunFolder.check(tmp_path, "mine", overwrite=True, inputs=[tmp_path / given])
    RunFolder.check(tmp_path, "mine", overwrite=True, inputs=[tmp_path / "other.safetensors"])


@pytest.mark.parametrize("name", ["", "..", "a/b", "../a"])
def test_names_with_folders_in_them_are_refused(tmp_path, name):
    with pytest.raises(UserError, match="plain folder name"):
        RunFolder.create(tmp_path / "runs", name)
    assert not (tmp_path / "runs").exists()


def test_file_in_the_way_is_refused_even_with_overwrite(tmp_path):
    Path(tmp_path / "mine").write_text("")
    with pytest.raises(UserError, match="is a file"):
        RunFolder.create(tmp_path, "mine", overwrite=True)


def test_a_root_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"run.root .*file/runs cannot be created: .*file is no folder"):
        RunFolder.create(tmp_path / "file" / "runs")


def test_paths_may_be_text(tmp_path):
    assert RunFolder(str(tmp_path)).journal == tmp_path / "journal.jsonl"
    with pytest.raises(UserError, match="the folder of a run is None: expected the path of a folder"):
        RunFolder(None)


def test_versions_name_what_figures_depend_on():
    assert {"python", "torch", "lightning", "gnnrl_lightning"} <= versions().keys()
