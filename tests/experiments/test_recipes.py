"""The table of recipes.py."""

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "experiments" / "benchmarks" / "recipes.py"


@pytest.fixture(scope="module")
def recipes():
    spec = importlib.util.spec_from_file_location("recipes", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def row(widths, recipe, seed, development, seconds=10.0):
    after = {"development": development, "final": development - 1}
    return {"widths": widths, "recipe": recipe, "seed": seed, "after": after, "processor_seconds": seconds}


def test_recipes_are_compared_with_the_first_one_by_widths_and_seed(recipes):
    first, other = {"learning_rate": 0.1}, {"learning_rate": 0.2}
    rows = [
        row([8], first, 0, 80.0),
        row([4], first, 0, 70.0),
        row([8], other, 0, 82.0, 20.0),
        row([4], other, 0, 74.0, 40.0),
        row([2], other, 0, 60.0, 30.0),  # no training of the first recipe
    ]
    base, found = recipes.report(rows, first)
    assert base["recipe"] == first and base["trainings"] == 2 and base["final"] == {"mean": 74.0}
    assert found["trainings"] == 3 and found["processor_seconds"] == 30
    development = found["development"]
    assert development["mean"] == 72 and development["minus_first"] == pytest.approx(3)
    # differences 2 and 4: standard error 1, Student's t with one degree of freedom
    assert development["high"] - 3 == pytest.approx(12.706, abs=1e-3)
