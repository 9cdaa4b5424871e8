import subprocess
import sys

import pytest

# 30 blocks of 4 MiB, one after the other, each written: how many pages are faulted in?
SCRIPT = """
import resource
import sys

import torch

from gnnrl_lightning.memory import keep_freed_memory

if sys.argv[1] == "keep":
    assert keep_freed_memory()
torch.empty(2**20).fill_(1.0)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(30):
    torch.empty(2**20).fill_(1.0)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(mode):
    done = subprocess.run([sys.executable, "-c", SCRIPT, mode], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="there is no glibc to tell")
def test_freed_blocks_are_used_again():
    """In processes of their own: what a test suite has freed before lies about the heap. A block has 1,024 pages."""
    assert faults("keep") < 2 * 1024 < faults("leave")
