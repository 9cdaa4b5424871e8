import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnnrl_lightning.report.pages.candidate_figures import (
    MARKS,
    STARTING,
    candidates_figure,
    pareto_front,
    search_figure,
)
from gnnrl_lightning.report.pages.drawing import styled
from tests.support.results import candidate, run_record

POINTS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=12)


@given(POINTS)
def test_the_front_is_what_no_other_point_beats(points):
    costs, merits = ([point[i] for point in points] for i in range(2))
    front = {points[i] for i in pareto_front(costs, merits)}

    def beaten(point):
        return any(o[0] <= point[0] and o[1] >= point[1] and o != point for o in points)

    assert front == {point for point in points if not beaten(point)}


def test_every_proposer_has_its_mark():
    with styled():
        figure = candidates_figure(run_record())
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    marks = [MARKS["agent"].label, STARTING.label, MARKS["uniform"].label]
    assert set(labels) == {*marks, "dropped, an estimate", "Pareto front", "delivered"}


def test_cost_on_the_axis_is_the_one_that_differs():
    with styled():
        figure = candidates_figure(run_record())
    assert figure.axes[0].get_xlabel() == "parameters kept, % of dense"


def test_the_best_so_far_is_never_a_dropped_candidate():
    journal = [
        candidate("uniform", 80.0, 0.5),
        candidate("agent", 99.0, 0.5, dropped=True),
        candidate("agent", 85.0, 0.5),
    ]
    with styled():
        figure = search_figure(run_record(candidates=journal))
    (line,) = (line for line in figure.axes[0].lines if line.get_label() == "best so far")
    assert list(line.get_ydata()) == [80.0, 80.0, 85.0]
    assert figure.axes[0].get_ylabel() == "reward (divergence)"


@pytest.mark.parametrize(("higher", "logarithmic"), [(True, False), (False, False), (False, True)])
def test_better_is_up(higher, logarithmic):
    objective = {**run_record().objective, "higher_is_better": higher, "logarithmic": logarithmic}
    result = {**run_record().result, "objective": objective}
    with styled():
        figure = candidates_figure(run_record(objective=objective, result=result))
    low, high = figure.axes[0].get_ylim()
    assert (low < high) == higher


def test_a_search_method_is_no_starting_candidate():
    """Each starting candidate has a name of its own; the candidates of a method share its name."""
    journal = [candidate("uniform", 80.0, 0.5), candidate("greedy", 82.0, 0.5)]
    journal += [candidate("hill_climbing", 83.0 + i, 0.4 + 0.1 * i) for i in range(3)]
    for points, labels in ((journal, {"uniform", STARTING.label, "hill climbing"}), (journal[1:2], {"greedy"})):
        with styled():
            figure = search_figure(run_record(candidates=points))
        assert {text.get_text() for text in figure.legends[0].get_texts()} == {*labels, "best so far"}
