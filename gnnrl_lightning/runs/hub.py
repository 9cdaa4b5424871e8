"""Share the pruned network of a run on the Hugging Face hub, and fetch one from there.

```
push("runs/NAME", "user/repo")          # the artifact and a model card; needs a login (hf auth login)
folder = pull("user/repo", "downloaded")  # every file is compared with its checksum, and nothing is loaded
load(folder, format="onnx")               # as an artifact of this machine
```

Only the files that the recipe names are sent and fetched, and the card. An exported program (`model.pt2`) has pickled
parts: it is fetched like any other file, and loaded only if `load(folder, format="program")` asks for it. The
environment variable HF_ENDPOINT is the address of another hub.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from gnnrl_lightning.artifacts.integrity import check_files
from gnnrl_lightning.artifacts.recipe import RECIPE, files_of, read_recipe
from gnnrl_lightning.checks import as_path, flag, instance
from gnnrl_lightning.errors import UserError, chain, check_installed, first_line
from gnnrl_lightning.report.model_card import model_card
from gnnrl_lightning.runs.folder import RunFolder
from gnnrl_lightning.runs.integrity import read_result

PACKAGES = ("huggingface_hub",)
"""Packages of the extra `hub`."""

CARD = "README.md"
"""File of the model card."""

LOGIN = "log in (hf auth login), or set HF_TOKEN to a token with write access"


def push(run: str | Path, repo: str, private: bool = False) -> str:
    """Send the pruned network of a run, with a model card, to a repository of the hub.

    Args:
        run: Folder of a finished run.
        repo: The repository, user/name; it is created if it does not exist.
        private: Whether a repository that is created is private.

    Returns:
        Address of the repository.

    Raises:
        UserError: The run has no result, a file is missing or damaged, a package is missing, nobody is logged in, or
            the hub refuses or cannot be reached.
    """
    folder, private = RunFolder(as_path("run", run, "folder")), flag("private", private)
    _check_repo(repo)
    check_installed("push", PACKAGES, "hub")
    from huggingface_hub import CommitOperationAdd, HfApi, get_token

    if not folder.result.is_file():
        above = RunFolder(folder.path.absolute().parent)
        meant = f" (did you mean {folder.path.parent}?)" if above.result.is_file() else ""
        raise UserError(f"{folder.path} has no result.json{meant}: give the folder of a finished run of fit or prune")
    result, recipe = read_result(folder), check_files(folder.pruned)
    if get_token() is None:
        raise UserError(f"push needs an account on the hub: {LOGIN}")
    api = HfApi()
    with _refusals(repo):
        url = api.create_repo(repo, private=private or None, exist_ok=True)
        card = model_card(result, recipe, repo).encode()
        files: dict[str, Any] = {name: folder.pruned / name for name in _names(recipe)}
        api.create_commit(
            repo,
            [CommitOperationAdd(name, given) for name, given in {CARD: card, **files}.items()],
            commit_message=f"{result['network']}, pruned",
        )
    return str(url)


def pull(repo: str, folder: str | Path, revision: str | None = None) -> Path:
    """Fetch an artifact from the hub, and compare every file with its checksum. Nothing is loaded.

    Args:
        repo: The repository, user/name.
        folder: Folder to write, which does not exist or is empty. If anything fails, it is left as it was.
        revision: Branch, tag or commit; None: the default branch.

    Returns:
        The folder.

    Raises:
        UserError: The folder has files, the repository or the revision does not exist or has no artifact, a file is
            damaged, a package is missing, or the hub refuses or cannot be reached.
    """
    folder = as_path("folder", folder, "folder")
    _check_repo(repo)
    if revision is not None and not instance("revision", revision, str, "a branch, a tag or a commit, or None"):
        raise UserError("revision is empty: expected a branch, a tag or a commit; leave it out for the default branch")
    check_installed("pull", PACKAGES, "hub")
    from huggingface_hub import HfApi

    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is not empty: expected a new folder; choose another name")
    folder.parent.mkdir(parents=True, exist_ok=True)
    api = HfApi()
    with TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as temporary:
        fetched = Path(temporary) / folder.name
        with _refusals(repo):
            commit = api.model_info(repo, revision=revision).sha  # one for all files
            api.hf_hub_download(repo, RECIPE, revision=commit, local_dir=fetched)
            with _whole(repo):
                recipe = read_recipe(fetched)
            for name in _names(recipe):
                api.hf_hub_download(repo, name, revision=commit, local_dir=fetched)
            if api.file_exists(repo, CARD, revision=commit):
                api.hf_hub_download(repo, CARD, revision=commit, local_dir=fetched)
        with _whole(repo):
            check_files(fetched)
        shutil.rmtree(fetched / ".cache", ignore_errors=True)  # what huggingface_hub notes of downloads
        if folder.is_dir():
            folder.rmdir()
        fetched.rename(folder)
    return folder


def _check_repo(repo: str) -> None:
    """Refuse what has not the form user/name: without the user, the hub would look for another repository."""
    instance("repo", repo, str, "the name of a repository, user/name")
    if repo.count("/") != 1:
        raise UserError(f"{repo!r} is no name of a repository: expected user/name")


def _names(recipe: dict[str, Any]) -> list[str]:
    """The files of an artifact."""
    return [RECIPE, *(file for note in recipe["formats"].values() for file in files_of(note))]


@contextmanager
def _whole(repo: str) -> Iterator[None]:
    """Say of which repository a fetched artifact is that is refused within this block."""
    try:
        yield
    except UserError as error:
        raise UserError(
            f"{repo}, as it was fetched, is refused: {error}: nothing is kept; repeat the command, or ask the owner"
        ) from error


@contextmanager
def _refusals(repo: str) -> Iterator[None]:
    """Turn what the hub and the network refuse into one line."""
    try:
        yield
    except Exception as error:
        message = _refusal(repo, error)
        if message is None:
            raise
        raise UserError(message) from error


def _refusal(repo: str, error: Exception) -> str | None:
    """Say what the hub or the network has refused; None: the error is of another kind."""
    from huggingface_hub import errors

    transport = errors.HfHubHTTPError.__mro__[1]  # of the HTTP library that huggingface_hub uses
    for each in chain(error):
        if isinstance(each, errors.HFValidationError):
            return f"{repo!r} is no name of a repository ({first_line(each)}): expected user/name"
        if isinstance(each, errors.OfflineModeIsEnabled):
            return f"the hub is switched off by HF_HUB_OFFLINE: set it to 0 to reach {repo}"
        if isinstance(each, errors.RevisionNotFoundError):
            return f"{repo} lacks this revision: give a branch, a tag or a commit that it has"
        if isinstance(each, errors.EntryNotFoundError) and isinstance(each, errors.HfHubHTTPError):
            return f"{repo} has no artifact of this package, or not all of its files: give a repository made by push"
        if isinstance(each, errors.RepositoryNotFoundError):
            return f"{repo} does not exist, or is private or gated: give user/name; if it is yours, {LOGIN}"
        if isinstance(each, errors.HfHubHTTPError):
            status = each.response.status_code
            advice = LOGIN if status in (401, 403) else "try again later"
            return f"the hub refuses {repo} ({status}, {each.server_message or each.response.reason_phrase}): {advice}"
        if isinstance(each, transport):
            return f"the hub cannot be reached ({first_line(each)}): check the network, and repeat the command"
    return None
