import errno
import statistics

import pytest

from gnnrl_lightning.cli import main
from gnnrl_lightning.cli.ending import ending, reading_user_code
from gnnrl_lightning.errors import UserError


def test_refusals_of_the_system_have_exit_code_1_and_a_remedy():
    end = ending(OSError(errno.ENOSPC, "No space left on device", "runs/a/journal.jsonl"))
    assert end.code == 1 and end.line == "error: runs/a/journal.jsonl: No space left on device: make room"
    copied = OSError(errno.ENOSPC, "No space left on device", "/tmp/whole", None, "runs/a/agent.ckpt")
    assert ending(copied).line == "error: runs/a/agent.ckpt: No space left on device: make room"
    wrapped = RuntimeError("while saving")
    wrapped.__cause__ = PermissionError(errno.EACCES, "Permission denied", "runs")
    assert ending(wrapped).line == "error: runs: Permission denied: expected permission to read and write there"
    assert ending(OSError("no number")).line == "error: no number"


def test_no_more_threads_and_characters_that_a_terminal_does_not_show():
    wrapped = RuntimeError("while measuring")
    wrapped.__cause__ = RuntimeError("can't start new thread")
    end = ending(wrapped)
    assert end.code == 1 and end.line.startswith("error: no more threads can be started: set fewer, run.threads")
    assert ending(UserError("a\0b is given: expected text")).line == r"error: a\x00b is given: expected text"
    assert ending(OSError(errno.ENOENT, "No such file", "a\x1b[2J")).line.startswith(r"error: a\x1b[2J: No such")


def test_invalid_input_has_exit_code_2_wherever_it_was_wrapped():
    wrapped = ValueError("Parser key")
    wrapped.__context__ = UserError("batch_size=-1: expected at least 1")
    assert (ending(wrapped).code, ending(wrapped).line) == (2, "error: batch_size=-1: expected at least 1")


def test_defects_keep_their_traceback():
    defect = AttributeError("no such attribute")
    defect.__context__ = FileNotFoundError(errno.ENOENT, "No such file", "a")  # handled, when the defect struck
    assert ending(defect) is None and ending(TypeError("x")) is None


@pytest.mark.parametrize("statement", ["raise RuntimeError('no\\nway')", "import sys; sys.exit()", "1 / 0", "quit(3)"])
def test_errors_of_the_users_own_code_name_file_and_line(tmp_path, statement):
    path = tmp_path / "own.py"
    path.write_text(f"\n{statement}\n")
    with pytest.raises(UserError, match=rf"^{path}, line 2 ends with \w+: ") as error, reading_user_code():
        exec(compile(path.read_text(), path, "exec"), {})
    assert str(error.value).isprintable()


@pytest.mark.parametrize("name", ["own.py", "site-packages/library.py"])
def test_code_of_the_users_own_that_fails_in_a_run_ends_it_in_one_line(tmp_path, name):
    with pytest.raises(KeyError) as error:
        exec(compile("\n{}['loss']", tmp_path / name, "exec"), {})
    end = ending(error.value)
    if name == "own.py":
        assert (end.line, end.code) == (f"error: {tmp_path}/own.py, line 2 ends with KeyError: 'loss'", 2)
    else:
        assert end is None


def test_a_file_that_the_users_own_code_misses_is_named_with_its_line(tmp_path):
    """No folder that went away while the program ran; only a full disk is the system's, whoever writes."""
    with pytest.raises(FileNotFoundError) as error:
        exec(compile("\nopen('missing')", tmp_path / "own.py", "exec"), {})
    end = ending(error.value)
    assert end.code == 2 and end.line.startswith(f"error: {tmp_path}/own.py, line 2 ends with FileNotFoundError: ")
    full = "\nraise OSError(28, 'No space left on device', 'a')"
    with pytest.raises(OSError, match="No space") as error:
        exec(compile(full, tmp_path / "own.py", "exec"), {})
    assert ending(error.value).line == "error: a: No space left on device: make room"


@pytest.mark.parametrize(("rank", "size", "said"), [(0, 2, "error: no"), (1, 2, "process 1: error: no"), (1, 1, "")])
def test_every_process_says_why_it_ends_once_they_have_met(monkeypatch, capsys, rank, size, said):
    def fails(args):
        raise UserError("no")

    monkeypatch.setattr("gnnrl_lightning.cli._run", fails)
    monkeypatch.setattr("gnnrl_lightning.processes.rank", lambda: rank)
    monkeypatch.setattr("gnnrl_lightning.processes.world_size", lambda: size)
    with pytest.raises(SystemExit) as end:
        main(["fit", "--config", "digits"])
    assert end.value.code == 2 and capsys.readouterr().err.strip() == said


def test_ctrl_c_while_packages_are_imported_leaves_no_traceback(monkeypatch, capsys):
    def interrupted(args):
        raise KeyboardInterrupt

    monkeypatch.setattr("gnnrl_lightning.cli._answer", interrupted)
    with pytest.raises(SystemExit) as end:
        main(["fit"])
    assert end.value.code == 130 and capsys.readouterr() == ("", "")


def test_an_exit_through_a_hook_of_a_library_is_the_users(tmp_path):
    hook, own = tmp_path / "site-packages" / "hook.py", tmp_path / "own.py"
    names = {}
    exec(compile("def leave():\n    raise SystemExit(0)\n", hook, "exec"), names)
    with pytest.raises(UserError, match=rf"^{own}, line 1 ends with SystemExit: "), reading_user_code():
        exec(compile("leave()", own, "exec"), names)


def test_errors_of_libraries_and_our_own_pass():
    with pytest.raises(UserError, match=r"^ours$"), reading_user_code():
        raise UserError("ours")
    with pytest.raises(statistics.StatisticsError), reading_user_code():
        statistics.mean([])
