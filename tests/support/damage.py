"""The random damage of the benchmark of faults."""

import importlib.util
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "experiments" / "benchmarks" / "damage.py"

spec = importlib.util.spec_from_file_location("damage", SCRIPT)
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
damaged = module.damaged
