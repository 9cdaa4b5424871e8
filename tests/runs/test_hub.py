"""Push and pull by huggingface_hub itself, against a server on this machine."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from gnnrl_lightning import load, pull, push
from gnnrl_lightning.artifacts import artifact
from gnnrl_lightning.artifacts.recipe import recipe_hash
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.runs import hub
from gnnrl_lightning.runs.folder import RunFolder
from tests.support.delivered import Image, delivered
from tests.support.fake_hub import serving, use
from tests.support.results import RESULT

huggingface_hub = pytest.importorskip("huggingface_hub")
constants = pytest.importorskip("huggingface_hub.constants")

REPO = "user/small"
FILES = {"README.md", "recipe.json", "weights.safetensors", "model.pt2"}
IMAGES = torch.linspace(0, 1, 900).view(3, 3, 10, 10)


@dataclass(frozen=True)
class Run:
    """A finished run: its folder, the network, and the figures."""

    path: Path
    network: nn.Module
    figures: dict

    @property
    def folder(self):
        return self.path / "pruned"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("runs") / "mine"
    network, _ = delivered(Image(), (3, 10, 10), path / "pruned", ["weights", "program"])
    RunFolder(path).write_result(RESULT)
    return Run(path, network, RESULT)


@pytest.fixture
def server(monkeypatch, tmp_path):
    """A hub that answers; the account is the one that it knows, and caches are in the folder of the test."""
    with serving() as found:
        use(monkeypatch, found.endpoint, tmp_path / "cache")
        yield found


def test_what_is_pushed_comes_back_and_computes_the_same(run, server, tmp_path):
    url = push(run.path, REPO)
    assert url == f"{server.endpoint}/{REPO}" and set(server.repos[REPO][-1]) == FILES | {".gitattributes"}
    folder = pull(REPO, tmp_path / "new" / "pulled")
    assert folder == tmp_path / "new" / "pulled" and {path.name for path in folder.iterdir()} == FILES
    assert [path.name for path in folder.parent.iterdir()] == ["pulled"]
    for name in FILES - {"README.md"}:
        assert (folder / name).read_bytes() == (run.folder / name).read_bytes()
    expected = run.network(IMAGES).detach()
    assert torch.equal(load(folder, Image(), IMAGES)(IMAGES), expected)
    torch.testing.assert_close(artifact.load(folder, format="program")(IMAGES), expected)


def test_large_files_go_by_lfs_and_a_second_push_is_a_commit_of_the_same_repository(run, server, tmp_path):
    push(run.path, REPO, private=True)
    first = server.sha(REPO)
    assert server.private[REPO] in ("private", True)
    assert any(path.endswith("/info/lfs/objects/batch") for _, path, _ in server.asked)
    hashes = artifact.read_recipe(run.folder)["sha256"]
    assert set(server.objects) == {hashes["weights.safetensors"], hashes["model.pt2"]}
    server.repos[REPO][-1]["recipe.json"] = b"of another release"
    push(run.path, REPO)
    assert len(server.repos[REPO]) == 3
    pull(REPO, tmp_path / "latest")
    with pytest.raises(UserError, match=r"recipe\.json is damaged"):
        pull(REPO, tmp_path / "first", revision=first)


def test_nothing_else_of_the_folder_is_sent(run, server, tmp_path):
    copied = shutil.copytree(run.path, tmp_path / "copied")
    (copied / "pruned" / "notes.txt").write_text("private")
    push(copied, REPO)
    assert set(server.repos[REPO][-1]) == FILES | {".gitattributes"}


def test_pulling_loads_nothing(run, server, tmp_path, monkeypatch):
    """Neither the program with its pickled parts, nor the weights."""
    push(run.path, REPO)

    def loaded(*_, **__):
        raise AssertionError("loaded")

    for module, name in ((torch, "load"), (torch.export, "load"), (artifact, "load_pruned")):
        monkeypatch.setattr(module, name, loaded)
    folder = pull(REPO, tmp_path / "pulled")
    assert {path.name for path in folder.iterdir()} >= FILES


@pytest.mark.parametrize("name", ["weights.safetensors", "model.pt2", "recipe.json"])
def test_a_file_that_is_damaged_on_the_way_leaves_nothing(run, server, tmp_path, name):
    push(run.path, REPO)
    server.damage = name
    with pytest.raises(UserError, match=rf"{REPO}, as it was fetched, is refused: .*{name} is damaged") as error:
        pull(REPO, tmp_path / "pulled")
    assert "\n" not in str(error.value) and not (tmp_path / "pulled").exists()
    assert [path.name for path in tmp_path.iterdir() if path.name != "cache"] == []


def test_the_card_has_what_the_hub_reads(run, server, tmp_path):
    """As huggingface_hub parses it: the score on the test examples, and the library."""
    push(run.path, REPO)
    folder = pull(REPO, tmp_path / "pulled")
    card = huggingface_hub.ModelCard.load(folder / "README.md")
    (result,) = card.data.eval_results
    assert result.metric_value == pytest.approx(run.figures["pruned"]["top1_test_after"], abs=1e-4)
    assert card.data.library_name == "gnnrl-lightning"
    assert f"pull {REPO} FOLDER" in card.text and "weights.safetensors" in card.text


def test_a_recipe_that_leads_elsewhere_is_refused(run, server, tmp_path):
    """Names of files are plain: nothing is written outside of the folder."""
    recipe = json.loads((run.folder / "recipe.json").read_text())
    recipe["formats"]["weights"]["beside"] = ["../escaped"]
    recipe["sha256"]["recipe.json"] = recipe_hash(recipe)
    server.commit(REPO, {"recipe.json": json.dumps(recipe).encode(), "../escaped": b"x"})
    with pytest.raises(UserError, match=r"has the file '\.\./escaped', expected a plain name"):
        pull(REPO, tmp_path / "pulled")


PULLS = {
    "no repository": (None, "user/none", {}, r"^user/none does not exist, or is private or gated: give user/name"),
    "no name": (None, "a/b/c", {}, r"^'a/b/c' is no name of a repository: expected user/name$"),
    "no revision": (None, REPO, {"revision": "v9"}, rf"^{REPO} lacks this revision: give a branch"),
    "no artifact": (None, "user/empty", {}, r"^user/empty has no artifact of this package, or not all of its files"),
    "a busy hub": ((REPO, 503, "Overloaded"), REPO, {}, rf"^the hub refuses {REPO} \(503, .*\): try again later$"),
}


@pytest.mark.parametrize("case", PULLS)
def test_what_cannot_be_pulled_is_one_line(run, server, tmp_path, case):
    push(run.path, REPO)
    server.commit("user/empty", {"README.md": b"nothing"})
    server.refuse, repo, more, message = PULLS[case]
    with pytest.raises(UserError, match=message) as error:
        pull(repo, tmp_path / "pulled", **more)
    assert "\n" not in str(error.value) and not (tmp_path / "pulled").exists()


@pytest.mark.parametrize("status", [401, 403])
def test_an_account_that_may_not_write_is_told_to_log_in(run, server, monkeypatch, status):
    server.refuse = ("/api/repos/create", status, "You have no rights")
    with pytest.raises(UserError, match=rf"\({status}, .*\): log in \(hf auth login\), or set HF_TOKEN") as error:
        push(run.path, REPO)
    assert "\n" not in str(error.value) and REPO not in server.repos


def test_a_push_without_a_login_asks_nobody(run, server, monkeypatch, tmp_path):
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no_token"))
    with pytest.raises(UserError, match=r"^push needs an account on the hub: log in \(hf auth login\)"):
        push(run.path, REPO)
    assert server.asked == []


def test_a_hub_that_does_not_answer_is_one_line(run, tmp_path, monkeypatch):
    use(monkeypatch, "http://127.0.0.1:9", tmp_path / "cache")
    for call in (lambda: push(run.path, REPO), lambda: pull(REPO, tmp_path / "pulled")):
        with pytest.raises(UserError, match=r"^the hub cannot be reached \(.*\): check the network") as error:
            call()
        assert "\n" not in str(error.value)


def test_what_is_wrong_here_is_said_before_anything_is_sent(run, server, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"has no result\.json: give the folder of a finished run"):
        push(tmp_path, REPO)
    copied = shutil.copytree(run.path, tmp_path / "copied")
    (copied / "pruned" / "model.pt2").write_bytes(b"other")
    with pytest.raises(UserError, match=r"model\.pt2 is damaged"):
        push(copied, REPO)
    with pytest.raises(UserError, match="is not empty: expected a new folder"):
        pull(REPO, copied)
    monkeypatch.setattr(hub, "PACKAGES", ("of_no_such_name",))
    for call in (lambda: push(copied, REPO), lambda: pull(REPO, tmp_path / "pulled")):
        with pytest.raises(UserError, match=r"needs of_no_such_name: pip install 'gnnrl-lightning\[hub\]'"):
            call()
    assert server.asked == []


def test_metadata_is_yaml_whatever_the_names(run):
    """Colons, quotes and new lines in the name of a data set."""
    strange = {**run.figures, "dataset": "a: 'b'\n- c"}
    text = hub.model_card(strange, artifact.read_recipe(run.folder), REPO)
    _, metadata, _ = text.split("---\n", 2)
    assert yaml.safe_load(metadata)["model-index"][0]["results"][0]["dataset"]["name"] == "a: 'b'\n- c"
