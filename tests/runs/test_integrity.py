import random
import re

import pytest
import yaml

from gnnrl_lightning.errors import UserError
from gnnrl_lightning.files import replacing
from gnnrl_lightning.runs.folder import RunFolder
from gnnrl_lightning.runs.integrity import check_files, read_result
from tests.support.damage import damaged

FILES = ("dense.safetensors", "sensitivity.safetensors", "agent.ckpt", "policy.safetensors", "pruned.ckpt")


@pytest.fixture
def run(tmp_path):
    """A run with files as their writers leave them."""
    folder = RunFolder.create(tmp_path, "mine")
    folder.write_config("search:\n  evaluations: 20\n")
    folder.metrics.write_text("epoch,loss,step\n0,0.5,3\n1,0.25,7\n")
    for name in FILES:
        with replacing(folder.checkpoints / name, checksum=True) as partial:
            partial.write_bytes(random.Random(name).randbytes(500))
    folder.write_result({"search": {"seed": 0}})
    return folder


def test_an_untouched_run_is_accepted(run):
    check_files(run)
    assert read_result(run) == {"search": {"seed": 0}}


DAMAGES = {
    ".began.yaml": ".began.yaml is missing or was changed since the run began, perhaps by an earlier release: begin",
    "checkpoints/dense.safetensors": "delete it to go on; the dense network is trained again",
    "checkpoints/sensitivity.safetensors": "delete it to go on; the sensitivity is measured again",
    "checkpoints/agent.ckpt": "delete it to go on; the agent starts again, and evaluations in the journal are not",
    "checkpoints/policy.safetensors": "delete it to go on; the search resumes from agent.ckpt",
    "checkpoints/pruned.ckpt": "delete it to go on; this network is fine-tuned again",
    "result.json": "delete it to go on; the networks are tested and saved again",
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_named_with_its_remedy(run, name):
    path, draw = run.path / name, random.Random(0)
    data = path.read_bytes()
    for _ in range(200):
        path.write_bytes(damaged(data, draw))
        with pytest.raises(UserError, match=re.escape(DAMAGES[name])) as error:
            check_files(run)
            read_result(run)
        assert str(error.value).startswith(str(path)) and str(error.value).isprintable()
    path.unlink()
    if name.startswith("checkpoints"):  # the remedy
        check_files(run)


def test_damage_to_the_configuration_is_refused_unless_its_values_are_the_same(run):
    draw, data, refused = random.Random(0), run.config.read_bytes(), 0
    for _ in range(200):
        run.config.write_bytes(damaged(data, draw))
        try:
            check_files(run)
        except UserError as error:
            assert str(error).startswith(str(run.config)) and str(error).isprintable()
            refused += 1
        else:
            assert yaml.safe_load(run.config.read_text()) == {"search": {"evaluations": 20}}
    assert refused > 150


def test_a_file_of_another_run_is_refused(run, tmp_path):
    other = RunFolder.create(tmp_path, "other")
    with replacing(other.weights("dense"), checksum=True) as partial:
        partial.write_bytes(b"other weights")
    run.weights("dense").write_bytes(other.weights("dense").read_bytes())
    with pytest.raises(UserError, match=r"dense\.safetensors was changed"):
        check_files(run)


@pytest.mark.parametrize(
    "text", [b"\xff\n", b"epoch\n1,2,3\n", b"epoch,loss\n1\n", b"epoch\nfirst\n", b'epoch\n"1"2\n']
)
def test_metrics_that_are_no_table_are_one_line(run, text):
    run.metrics.write_bytes(text)
    with pytest.raises(UserError, match=r"metrics.csv is damaged \(.*delete it to go on without the metrics so far"):
        check_files(run)
