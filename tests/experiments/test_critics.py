"""The benchmark of critics reads both kinds of files, and judges a critic by what it does not know."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parents[2] / "experiments" / "benchmarks" / "critics.py"


@pytest.fixture(scope="module")
def critics():
    spec = importlib.util.spec_from_file_location("critics", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["critics"] = module  # for its data classes
    spec.loader.exec_module(module)
    yield module
    del sys.modules["critics"]


def records(count, seed):
    """Candidates of two groups; the first one decides, and the sensitivity does not know."""
    generator = torch.Generator().manual_seed(seed)
    for width, other in torch.randint(1, 17, (count, 2), generator=generator).tolist():
        yield {"widths": [width, other], "errors": [1 / 16, 1 / other], "kl": [0.5 / width, 1.5 / width]}


@pytest.fixture
def files(tmp_path):
    one, many = tmp_path / "one.jsonl", tmp_path / "many.jsonl"
    one.write_text("\n".join(json.dumps(line) for line in ({"dense": [16, 16], "names": []}, *records(150, 0))))
    networks = [{"dense": [16, 16], "rows": list(records(60, seed))} for seed in (1, 2)]
    many.write_text("\n".join(json.dumps(line) for line in networks))
    return one, many


def test_a_candidate_that_is_there_twice_counts_once(critics, files):
    (pool,) = critics.read(files[0])
    assert len(pool.values) == len(pool.widths.unique(dim=0)) < 150
    torch.testing.assert_close(pool.values, -pool.widths[:, 0].double().log())
    assert len(critics.read(files[1])) == 2


def test_of_searches_the_first_candidates_of_one_are_known(critics, tmp_path):
    """What two searches have both found, counts as known if either knows it."""
    rows = [{"search": name, **row} for name, seed in (("a", 0), ("b", 1)) for row in records(40, seed)]
    path = tmp_path / "searches.jsonl"
    path.write_text("\n".join(json.dumps(line) for line in ({"dense": [16, 16], "names": []}, *rows)))
    (pool,) = critics.read(path)
    known, rest = pool.chosen(12, 1)
    assert pool.widths[known].tolist() == [row["widths"] for row in rows[40:52]]
    assert len(rest) + len(known.unique()) == len(pool.values) and not {*rest.tolist()} & {*known.tolist()}


def test_groups_are_alike_in_the_order_of_the_file(critics):
    names = ["layer3.0.conv1", "layer1.0.conv1", "layer1.1.conv1"]
    alike = critics.alike_in("resnet20", names)
    assert alike.shape == (3, 3) and alike[1, 2] > 0.9 > alike[0, 1]


@pytest.mark.parametrize("name", ["regression", "gaussian_process", "surrogate"])
def test_critics_learn_what_the_sensitivity_does_not_know(critics, files, name):
    (pool,) = critics.read(files[0])
    critic, prior = critics.CRITICS[name], critics.CRITICS["sensitivity"]
    correlation, _, regret = critics.judged(pool, critic, 20, 0)
    assert correlation > 0.8 and regret < 0.1
    assert abs(critics.judged(pool, prior, 20, 0)[0]) < 0.4
    assert critics.judged(pool, critic, 0, 0) == critics.judged(pool, prior, 0, 0)


def test_figures_of_many_networks_are_averaged(critics, files, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(critics, "REPEATS", 2)
    monkeypatch.setattr(sys, "argv", ["critics.py", *map(str, files), "--json", str(tmp_path / "found.json")])
    critics.main()
    found = json.loads((tmp_path / "found.json").read_text())
    assert set(found) == {"one", "many"} and list(found["many"]["surrogate"]) == ["0", "10", "20"]
    pools = critics.read(files[1])
    each = [critics.judged(pool, critics.sensitivity, 10, 0)[0] for pool in pools]
    assert found["many"]["sensitivity"]["10"]["tau"] == pytest.approx(sum(each) / 2, abs=1e-3)
    assert "one surrogate" in capsys.readouterr().out
