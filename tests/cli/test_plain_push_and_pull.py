"""The subcommands push and pull: what they print, and refusals of one line."""

import re

import pytest

from gnnrl_lightning.cli import main
from gnnrl_lightning.runs import hub
from tests.cli.refused import tree
from tests.support.fake_hub import serving, use

pytest.importorskip("huggingface_hub")


@pytest.fixture
def server(monkeypatch, tmp_path):
    with serving() as found:
        use(monkeypatch, found.endpoint, tmp_path / "cache")
        yield found


def test_a_run_is_pushed_and_its_network_is_tested_where_it_was_pulled(fitted, workplace, server, capsys):
    main(["push", "runs/fitted", "user/small"])
    assert capsys.readouterr().out == f"pushed to {server.endpoint}/user/small\n"
    main(["pull", "user/small", "pulled", "--revision", "main"])
    assert capsys.readouterr().out == "written to pulled\n"
    main(["test", "--config", "small.yaml", "--artifact", "runs/fitted/pruned"])
    expected = capsys.readouterr().out
    main(["test", "--config", "small.yaml", "--artifact", "pulled"])
    assert capsys.readouterr().out == expected and "%" in expected


REFUSED = {
    "no text": (["push", "runs/fitted", "a\0b"], "push: 'a\\x00b' is given: expected text without null bytes"),
    "no name": (["push", "runs/fitted", "a b/c"], "'a b/c' is no name of a repository"),
    "no user": (["push", "runs/fitted", "small"], "'small' is no name of a repository: expected user/name"),
    "an address": (["pull", "https://hub/user/small", "x"], "'https://hub/user/small' is no name of a repository: exp"),
    "the network of a run": (
        ["push", "runs/fitted/pruned", "user/small"],
        "runs/fitted/pruned has no result.json (did you mean runs/fitted?): give the folder of a finished run",
    ),
    "an empty revision": (["pull", "user/small", "x", "--revision", ""], "revision is empty: expected a branch, a tag"),
    "a path": (["push", "runs/fitted", "/etc/passwd"], "'/etc/passwd' is no name of a repository"),
    "a run without an end": (["push", ".", "user/small"], ". has no result.json: give the folder of a finished run"),
    "a file": (["push", "small.yaml", "user/small"], "small.yaml has no result.json"),
    "no name to fetch": (["pull", "../x", "pulled3"], "'../x' is no name of a repository"),
    "a file to fetch into": (["pull", "user/small", "small.yaml"], "small.yaml is not empty: expected a new folder"),
    "nothing to push": (["push"], "push: the following arguments are required: RUN, REPO"),
    "nothing to pull": (["pull", "user/small"], "pull: the following arguments are required: FOLDER"),
    "no run": (["push", "runs/none", "user/small"], "runs/none has no result.json: give the folder of a finished run"),
    "no repository": (["pull", "user/none", "pulled2"], "user/none does not exist, or is private or gated"),
    "no new folder": (["pull", "user/small", "runs"], "runs is not empty: expected a new folder"),
    "an unknown option": (["push", "runs/fitted", "user/small", "--secret"], "push: unrecognized arguments: --secret"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_are_one_line_and_write_nothing(case, fitted, workplace, server, capsys):
    arguments, message = REFUSED[case]
    before = tree(workplace)
    with pytest.raises(SystemExit) as end:
        main(arguments)
    error = capsys.readouterr().err
    assert end.value.code == 2 and error.count("\n") == 1 and re.search(re.escape(message), error), error
    assert tree(workplace) == before


def test_a_missing_package_is_one_line(monkeypatch, capsys):
    monkeypatch.setattr(hub, "PACKAGES", ("of_no_such_name",))
    for arguments in (["push", "run", "user/small"], ["pull", "user/small", "folder"]):
        with pytest.raises(SystemExit) as end:
            main(arguments)
        assert end.value.code == 2
        assert re.fullmatch(
            r"error: \w+ needs of_no_such_name: pip install 'gnnrl-lightning\[hub\]'\n", capsys.readouterr().err
        )
