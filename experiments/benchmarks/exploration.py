"""Model-based searches without an agent: how far drawn functions deviate from the mean, and what is scored first.

    python experiments/benchmarks/exploration.py --network resnet20 --checkpoint FILE --images FOLDER --budget 0.3 \
        --json experiments/results/exploration/resnet20_0.3.json

Candidates are repaired and scored as `fit` does by default, with all of the 500 held-out images that it uses. The
figures are the best reward, minus the log divergence from the dense network, after each candidate. No test image is
read. Finished searches in the JSON file are not repeated.
"""

from __future__ import annotations

import json
import time
from dataclasses import replace
from itertools import accumulate
from typing import Any

from one_problem import arguments, trained_network, write

from gnnrl_lightning.evaluation.journal import Journal
from gnnrl_lightning.job.trained import Trained
from gnnrl_lightning.search.gaussian_process import GaussianProcessSearch
from gnnrl_lightning.search.model_based import ModelBasedSearch
from gnnrl_lightning.search.surrogate_search import SurrogateSearch
from gnnrl_lightning.speed.machine import machine

SEARCHES: dict[str, ModelBasedSearch] = {
    "surrogate, whole deviations": SurrogateSearch(random=0, exploration=1.0),
    "surrogate": SurrogateSearch(random=0),
    "surrogate, random candidates first": SurrogateSearch(random=12),
    "gaussian process, random candidates first": GaussianProcessSearch(),
}
"""What is compared: name -> search."""


def searched(trained: Trained, evaluations: int, search: ModelBasedSearch, seed: int) -> dict[str, Any]:
    """The best reward after each candidate of a search."""
    evaluate = trained.journalled(Journal())
    problem = with_evaluations(trained, evaluations).problem(evaluate)
    began = time.perf_counter()
    search(problem, seed)
    rewards = [item.merit[0] for item in problem.history]
    return {
        "rewards": [round(best, 4) for best in accumulate(rewards, max)],
        "widths": list(problem.ranked()[0].widths),
        "seconds": round(time.perf_counter() - began, 1),
    }


def with_evaluations(trained: Trained, evaluations: int) -> Trained:
    """The same network, whose searches have another number of evaluations."""
    options = trained.job.options
    options = replace(options, search=replace(options.search, evaluations=evaluations))
    return replace(trained, job=replace(trained.job, options=options))


def main() -> None:
    """Search and print."""
    parser = arguments(__doc__)
    parser.add_argument("--evaluations", type=int, default=80, help="evaluations of a search (default 80)")
    parser.add_argument("--seeds", type=int, nargs="+", default=(0, 1, 2), help="seeds of the searches")
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    if args.json is not None and args.json.exists():
        rows = json.loads(args.json.read_text(encoding="utf-8"))["rows"]
    trained = trained_network(args, holdout=2000)
    for seed in args.seeds:
        for name, search in SEARCHES.items():
            named = {"search": name, "seed": seed, "evaluations": args.evaluations}
            if named not in [{key: row[key] for key in named} for row in rows]:
                rows.append(named | searched(trained, args.evaluations, search, seed))
                write(args, {"rows": rows, "machine": machine(trained.job.runtime.device)})


if __name__ == "__main__":
    main()
