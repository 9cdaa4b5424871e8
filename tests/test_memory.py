import subprocess
import sys

import pytest

# Ten times eight blocks of 4 MiB, written and freed together: how many pages are faulted in after the first time?
SCRIPT = """
import resource
import sys

import torch

from gnnrl_lightning.memory import keep_freed_memory

if sys.argv[1] == "keep":
    assert keep_freed_memory()


def use():
    return [torch.empty(2**20).fill_(1.0) for _ in range(8)]


use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(mode):
    done = subprocess.run([sys.executable, "-c", SCRIPT, mode], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="there is no glibc to tell")
def test_freed_blocks_are_used_again():
    """In processes of their own: what a test suite has freed before lies about the heap. Eight blocks: 8,192 pages."""
    assert 4 * faults("keep") < faults("leave")
