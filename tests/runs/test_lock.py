import json
import os
import platform
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gnnrl_lightning.errors import UserError
from gnnrl_lightning.runs.lock import locked

HOLDS = """
import sys
import time
from pathlib import Path

from gnnrl_lightning.runs.lock import locked

with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_another_process_is_named_and_leaves_no_lock_behind(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", HOLDS, str(tmp_path)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=rf"in use by process {holder.pid} on {platform.node()}: expected one"):
            with locked(tmp_path):
                raise AssertionError("both hold it")
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with locked(tmp_path):
        assert json.loads((tmp_path / ".holder.json").read_text())["process"] == os.getpid()


def test_a_process_that_has_just_begun_is_not_named_yet(tmp_path):
    with locked(tmp_path):
        (tmp_path / ".holder.json").write_text("{")
        with pytest.raises(UserError, match="in use by another process: expected one"), locked(tmp_path):
            raise AssertionError("both hold it")
