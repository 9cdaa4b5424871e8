"""Every method: within the budget, exactly as many evaluations as stated, the same for the same seed."""

import pytest
import torch

from gnnrl_lightning.candidates.pruner import Pruner
from gnnrl_lightning.cost.budget import Budget
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.search import optuna_search
from gnnrl_lightning.search.baselines import FROM_SENSITIVITY, STARTING, starting_candidates
from gnnrl_lightning.search.cross_entropy import CrossEntropySearch, Gaussian, ProxySearch
from gnnrl_lightning.search.evolution import SURPLUS, Evolution
from gnnrl_lightning.search.methods import METHODS, Method, one_shot, run_method
from gnnrl_lightning.search.problem import NotApplicable, SearchProblem
from tests.support.fakes import Landscape, SmallResNet, random_sensitivity, small_graph

EVALUATIONS = 40
CALIBRATION = 24
SEARCH = 10
TABLE = 31
CHARGE = 4
"""A sensitivity of 31 images on a holdout of 10."""
SPENT = {
    "uniform": 1,
    "global_l2": 1,
    "global_taylor": 1 + 3,  # 24 calibration images
    "greedy": 1 + CHARGE,
    "dynamic_programming": 1 + CHARGE,
    "torch_pruning_uniform": 1,
    "torch_pruning_global": 1,
    "random": EVALUATIONS,
    "evolution": EVALUATIONS,
    "cross_entropy": EVALUATIONS,
    "cross_entropy_proxy": 1 + CHARGE,
    "evolution_from_sensitivity": EVALUATIONS,
    "cross_entropy_from_sensitivity": EVALUATIONS,
    "gaussian_process": EVALUATIONS,
    "surrogate": EVALUATIONS,
    "optuna_tpe": EVALUATIONS,
    "optuna_cma_es": EVALUATIONS,
}
OPTUNA = ["optuna_tpe", "optuna_cma_es"]


@pytest.fixture(scope="module")
def pruner():
    torch.manual_seed(0)
    return Pruner(small_graph(), SmallResNet().eval(), torch.randn(CALIBRATION, 3, 8, 8))


def landscape(graph, share=0.5, seed=5):
    """Its optimum is a candidate: the projection of random keep ratios."""
    generator = torch.Generator().manual_seed(seed)
    keep = 0.2 + 0.8 * torch.rand(len(graph.groups), generator=generator)
    target = Budget(macs=share).on(graph).project(graph.widths * keep) / graph.widths
    return Landscape(graph, target)


def problem_of(pruner=None, budget=None, evaluations=EVALUATIONS, table=True, ranges=None):
    graph = small_graph().limited(ranges)
    limits = (budget or Budget(macs=0.5)).on(graph)
    make = (lambda: random_sensitivity(graph, examples=TABLE)) if table else None
    starting = starting_candidates(graph, limits)
    return SearchProblem(graph, limits, landscape(graph), evaluations, starting, make, SEARCH, pruner)


def test_the_table_of_what_is_spent_has_every_method():
    assert list(SPENT) == list(METHODS)


@pytest.mark.parametrize("name", SPENT)
@pytest.mark.parametrize("budget", [Budget(macs=0.5), Budget(macs=0.6, params=0.4, channel_multiple=4)], ids=["a", "b"])
def test_every_proposal_fits_and_cannot_be_wider(pruner, name, budget):
    search = problem_of(pruner, budget)
    limits = search.limits
    METHODS[name].run(search, 1)
    asked = torch.tensor([scored.widths for scored in search.history])
    assert limits.met(asked).all()
    allowed = limits.allowed
    for widths in asked.unique(dim=0):
        wider = torch.where(torch.eye(len(widths), dtype=torch.bool), allowed.wider(widths), widths)
        assert not limits.met(wider)[widths < search.graph.widths].any()


@pytest.mark.parametrize("name", SPENT)
@pytest.mark.parametrize("macs", [0.45, 0.99])
def test_every_proposal_keeps_to_the_limits_of_groups(pruner, name, macs):
    """Also where the budget is met without them: the residual stream (16) is cut to 12, and so are the inner layers."""
    ranges = {"outer.*": {"min": 10, "max": "75%"}, "inner.1": {"max": 15}, "last": {"min": "50%"}}
    search = problem_of(pruner, Budget(macs=macs), ranges=ranges)
    METHODS[name].run(search, 1)
    asked = torch.tensor([scored.widths for scored in search.history])
    assert [group.name for group in search.graph.groups] == ["stem", "inner.0", "inner.1", "last"]
    lowest, highest = torch.tensor([10, 1, 1, 16]), torch.tensor([12, 24, 15, 32])
    assert (asked >= lowest).all() and (asked <= highest).all()
    assert (asked == highest).all() == (macs == 0.99)
    for widths in asked.unique(dim=0):
        wider = widths + torch.eye(4, dtype=torch.int64)
        assert not search.limits.met(wider).any()


@pytest.mark.parametrize("name", SPENT)
def test_evaluations_are_exactly_as_stated(pruner, name):
    search = problem_of(pruner)
    METHODS[name].run(search, 1)
    assert search.spent == SPENT[name]
    images = {"global_taylor": CALIBRATION}.get(name, TABLE if search.reads_sensitivity else 0)
    charged = -(-images // SEARCH)
    assert search.charged_examples == images and len(search.history) == search.spent - charged


@pytest.mark.parametrize("name", ["random", "evolution", "cross_entropy"])
def test_searches_begin_with_the_starting_candidates(name):
    search = problem_of()
    METHODS[name].run(search, 1)
    assert not search.reads_sensitivity
    assert [proposer for _, proposer in search._evaluate.calls] == [*STARTING] + [name] * (EVALUATIONS - len(STARTING))


@pytest.mark.parametrize(
    "name", ["evolution_from_sensitivity", "cross_entropy_from_sensitivity", "gaussian_process", "surrogate", *OPTUNA]
)
def test_searches_from_the_table_pay_for_it(name):
    search = problem_of()
    METHODS[name].run(search, 1)
    names = [*STARTING, *FROM_SENSITIVITY]
    assert [proposer for _, proposer in search._evaluate.calls] == names + [name] * (EVALUATIONS - CHARGE - len(names))


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.seeded])
def test_the_seed_decides(name):
    def history(seed):
        search = problem_of()
        state = torch.get_rng_state()
        METHODS[name].run(search, seed)
        assert torch.equal(torch.get_rng_state(), state)
        return search.history

    assert history(3) == history(3)
    if name != "cross_entropy_proxy":  # which may find the same optimum
        assert history(3) != history(4)


@pytest.mark.parametrize("name", ["gaussian_process", "surrogate"])
@pytest.mark.parametrize("seed", range(3))
def test_a_model_finds_the_optimum_sooner(name, seed):
    """Within half a point in 60 evaluations, whatever the sensitivity, which is random here; none is repeated."""
    search = problem_of(evaluations=60)
    METHODS[name].run(search, seed)
    assert search.ranked()[0].merit[0] > 99.5
    assert len(search.ranked()) == len(search.history) - 1  # the two allocations are the same candidate


@pytest.mark.parametrize("name", OPTUNA)
def test_optunas_samplers_improve_and_repeat_nothing(name):
    search = problem_of(evaluations=60)
    METHODS[name].run(search, 0)
    starting = max(scored.merit[0] for scored in search.history[:6])
    assert starting < 95 and search.ranked()[0].merit[0] > 97
    assert len(search.ranked()) == len(search.history) - 1  # the two allocations are the same candidate


def test_tpe_draws_nothing_at_random_after_equal_starting_candidates(monkeypatch):
    samplers = pytest.importorskip("optuna.samplers")
    search, drawn = problem_of(evaluations=20), []
    search.starting = dict.fromkeys(STARTING, search.starting["uniform"])
    monkeypatch.setattr(samplers.RandomSampler, "sample_independent", lambda *given: drawn.append(given) or -0.5)
    METHODS["optuna_tpe"].run(search, 1)
    assert search.spent == 20 and not drawn


@pytest.mark.parametrize(("name", "package"), [("optuna_tpe", "optuna"), ("optuna_cma_es", "cmaes")])
def test_without_optuna_its_samplers_do_not_apply(monkeypatch, name, package):
    monkeypatch.setattr(optuna_search, "find_spec", lambda name: None if name == package else object())
    with pytest.raises(NotApplicable, match=f"{package} is not installed"):
        METHODS[name].run(problem_of(), 0)


@pytest.mark.parametrize("name", ["gaussian_process", "surrogate", *OPTUNA])
def test_a_model_ends_when_every_candidate_is_known(name):
    """Four groups of at most four widths: all projections of all of them are scored, each once or, at first, twice."""
    search = problem_of(budget=Budget(macs=0.5, channel_multiple=8), evaluations=200)
    METHODS[name].run(search, 0)
    levels = [torch.arange(8, int(width) + 1, 8) for width in search.graph.widths]
    everything = {tuple(row) for row in search.project(torch.cartesian_prod(*levels)).tolist()}
    assert search.left > 0 and {scored.widths for scored in search.ranked()} == everything


@pytest.mark.parametrize("method", [Evolution(), CrossEntropySearch()], ids=["evolution", "cross_entropy"])
@pytest.mark.parametrize("seed", range(3))
def test_the_optimum_is_found(method, seed):
    """Within half a point in 120 evaluations; the best starting candidate is five points below it."""
    search = problem_of(evaluations=120, table=False)
    method(search, seed)
    starting = max(scored.merit[0] for scored in search.history[:4])
    assert starting < 95 and search.ranked()[0].merit[0] > 99.5


def test_the_proxy_search_finds_the_least_error():
    """Not above dynamic programming's by more than two per cent."""
    search = problem_of()
    table = random_sensitivity(search.graph)
    least = float(table(FROM_SENSITIVITY["dynamic_programming"](search.graph, search.limits, table)))
    assert float(table(ProxySearch().best(search, 0))) <= 1.02 * least


def test_a_converged_search_spends_its_evaluations_all_the_same():
    """Four groups of at most four widths: fewer candidates than evaluations."""
    search = problem_of(budget=Budget(macs=0.5, channel_multiple=8), evaluations=60, table=False)
    Evolution()(search, 0)
    assert search.spent == 60 and len(search.ranked()) < 60


def test_children_take_after_their_parents():
    parents = torch.tensor([[0.5, 0.5, 0.5], [0.25, 0.25, 0.25]])
    generator = torch.Generator().manual_seed(0)
    still = Evolution(children=100, mutation=0.0, sigma=0.0).offspring(parents, generator)
    assert len(still) == 100 * SURPLUS and set(still.flatten().tolist()) == {0.5, 0.25}
    both = (still == 0.5).any(1) & (still == 0.25).any(1)
    # half have two parents, who differ in half of the cases; 6 of 8 draws of three groups take from both
    assert float(both.float().mean()) == pytest.approx(0.5 * 0.5 * 0.75, abs=0.05)
    moved = Evolution(children=100, mutation=0.0, crossover=0.0).offspring(parents[:1], generator)
    assert ((moved != 0.5).sum(1) == 1).all()


def test_a_gaussian_moves_towards_its_elite():
    """Logarithms of (1, 1) and (e^2, 1): means 1 and 0, standard deviations 1 and 0."""
    elite = torch.tensor([[0.0, 0.0], [2.0, 0.0]], dtype=torch.float64).exp()
    start = Gaussian(torch.tensor([0.0, 4.0]).double(), torch.tensor([0.5, 0.5]).double())
    moved = start.towards(elite, inertia=0.25, narrowest=0.2)
    assert torch.allclose(moved.mean, torch.tensor([0.75, 1.0]).double())
    assert torch.allclose(moved.spread, torch.tensor([0.875, 0.2]).double())


def test_methods_that_lack_something_say_so():
    for name, message in {"global_l2": "has no pruner", "greedy": "none is measured"}.items():
        with pytest.raises(NotApplicable, match=message):
            METHODS[name].run(problem_of(table=False), 0)


def test_methods_of_one_candidate_have_no_seed():
    assert [name for name, method in METHODS.items() if not method.seeded] == list(SPENT)[:7]


NARROWEST = one_shot("narrowest", lambda problem: problem.project(torch.ones(4)))


class Halving:
    """A search of the user's own that is a class."""

    def __call__(self, problem, seed):
        while problem.left:
            problem.ask(problem.project(problem.graph.widths // 2), "halving")


def test_a_method_of_ones_own_by_its_import_path():
    search = problem_of()
    METHODS.find(f"{__name__}.NARROWEST").run(search, 0)
    assert search._evaluate.calls[0][1] == "narrowest" and search.spent == 1
    method = METHODS.find(f"{__name__}.Halving")
    method.run(search, 0)
    assert isinstance(method, Method) and method.seeded and search.spent == EVALUATIONS


def test_images_that_a_method_reads_are_paid_for_once(pruner):
    """24 calibration images on a holdout of 10: three evaluations per pass."""
    search = problem_of(pruner)
    assert search.network is pruner.network and torch.equal(search.example, pruner.calibration[:1])
    assert search.charged_examples == 0
    assert search.calibration("mine") is search.calibration("mine") is pruner.calibration
    assert (search.charged_examples, search.spent) == (CALIBRATION, 3)
    search.calibration("another")
    assert search.charged_examples == 2 * CALIBRATION
    with pytest.raises(NotApplicable, match="has no pruner"):
        problem_of().calibration("mine")


def raising(problem, seed):
    problem.start()
    raise ValueError("no hill")


def without_seed(problem):
    problem.start()


def inapplicable(problem, seed):
    raise NotApplicable("needs hills")


def test_a_method_of_the_users_own_that_fails_is_one_line():
    search = problem_of()
    with pytest.raises(UserError, match=r"^search method raising fails: no hill \(test_methods.py, line \d+\); exp"):
        run_method(raising, search, 0)
    assert search.spent == len(STARTING)
    with pytest.raises(UserError, match=r"^by 'without_seed': expected .*; this one takes \(problem\)$"):
        run_method(without_seed, search, 0, "by")
    with pytest.raises(NotApplicable, match=r"^needs hills$"):
        run_method(inapplicable, search, 0)
