import os
import subprocess
import sys

import pytest
import torch

from gnnrl_lightning.speed import memory
from gnnrl_lightning.speed.memory import KERNELS, heap_alone, keep_kernels

# Ten times eight blocks of 4 MiB, written and freed together: how many pages are faulted in after ten times more?
SCRIPT = """
import resource
import sys

import torch

from gnnrl_lightning.speed.memory import keep_freed_memory

if sys.argv[1] == "keep":
    assert keep_freed_memory()


def use():
    return [torch.empty(2**20).fill_(1.0) for _ in range(8)]


for _ in range(10):  # until the heap has room for all blocks at once
    use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(mode):
    done = subprocess.run([sys.executable, "-c", SCRIPT, mode], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="there is no glibc to tell")
def test_freed_blocks_are_used_again():
    """In separate processes, because earlier tests leave freed memory on the heap. A block is 1,024 pages.

    By default, the allocator returns blocks or not, depending on what follows them on the heap.
    """
    assert max(faults("keep") for _ in range(3)) < 1024
    assert any(faults("leave") > 8 * 1024 for _ in range(12))


# Convolutions of many shapes, twice: how many kernels are compiled again in the second round?
SHAPES = """
import sys

import torch

from gnnrl_lightning.speed import memory

shapes, kernels = map(int, sys.argv[1:])
if kernels:
    memory.KERNELS = kernels
    memory.keep_kernels()

pixel, weight = torch.ones(1, 64, 1, 1), torch.ones(64, 64, 1, 1)
for _ in range(2):
    for shape in range(shapes):
        inputs, outputs = 1 + shape % 40, 1 + shape // 40
        kernel = weight[:outputs, :inputs].contiguous()
        torch.ops.mkldnn._convolution_pointwise(
            pixel[:, :inputs], kernel, None, [0, 0], [1, 1], [1, 1], 1, "relu", [], ""
        )
    print("round")
"""


def compiled_again(shapes, kernels):
    """Kernels of the second round; `kernels` are kept, 0 leaves oneDNN's default."""
    environment = os.environ | {"ONEDNN_VERBOSE": "2"}
    environment.pop("ONEDNN_PRIMITIVE_CACHE_CAPACITY", None)
    done = subprocess.run(
        [sys.executable, "-c", SHAPES, str(shapes), str(kernels)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    lines = done.stdout.split("round\n")[1].splitlines()
    made = [line for line in lines if "create:cache_" in line and ",convolution," in line]
    assert len(made) >= shapes
    return sum("create:cache_miss" in line for line in made)


@pytest.mark.parametrize("name", ["ONEDNN_PRIMITIVE_CACHE_CAPACITY", "DNNL_PRIMITIVE_CACHE_CAPACITY"])
def test_the_users_number_of_kernels_counts(monkeypatch, name):
    for each in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "DNNL_PRIMITIVE_CACHE_CAPACITY"):
        monkeypatch.delenv(each, raising=False)
    monkeypatch.setenv(name, "5")
    before = dict(os.environ)
    keep_kernels()
    assert dict(os.environ) == before


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="there is no oneDNN")
def test_as_many_kernels_are_kept_as_is_said():
    assert compiled_again(32, 16) >= 32 and compiled_again(32, 256) == 0


@pytest.mark.slow
@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="there is no oneDNN")
def test_kernels_are_kept_until_their_shape_comes_back():
    assert compiled_again(1200, 0) >= 1200 and compiled_again(1200, KERNELS) == 0


def test_blocks_are_mapped_again_after_a_measurement(monkeypatch):
    """Also after one that fails; 65,536 mapped blocks are allowed by default, see mallopt(3)."""
    asked = []
    monkeypatch.setattr(memory, "_mallopt", lambda option, value: asked.append((option, value)) or True)
    with pytest.raises(ZeroDivisionError), heap_alone():
        assert asked[-1] == (-4, 0)
        raise ZeroDivisionError
    assert asked[-1] == (-4, 65536)
