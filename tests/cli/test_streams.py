import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMMAND = f"{sys.executable} -m gnnrl_lightning --help"


@pytest.mark.parametrize(
    ("shell", "code", "said"),
    [
        (f"{COMMAND} | head -n 0", 0, ""),
        (f"{COMMAND} >&-", 0, ""),
        (f"{COMMAND} 2>&-", 0, ""),
        (f"{COMMAND} <&- >&- 2>&-", 0, ""),
        (f"{COMMAND} > /dev/full", 1, "error: standard output: No space left on device: make room\n"),
        (f"LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0 {COMMAND}", 0, ""),
        (f"{sys.executable} -m gnnrl_lightning fitt 2>&-", 2, ""),
        (f"{sys.executable} -m gnnrl_lightning fitt 2>/dev/full", 2, ""),
    ],
)
def test_output_that_nobody_can_read_ends_nothing(shell, code, said):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = ["bash", "-c", f"set -o pipefail; {shell}"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (code, said)


def test_characters_that_the_locale_lacks_are_replaced():
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"}
    script = (
        "import sys; from gnnrl_lightning.cli.streams import lasting_streams\n"
        "with lasting_streams(): print('ResNet \u2014 50 %')"
    )
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "ResNet ? 50 %\n"
