import re
import xml.dom.minidom
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from gnnrl_lightning.report.pages.drawing import PALETTE, styled
from gnnrl_lightning.report.pages.markup import sentence
from gnnrl_lightning.report.pages.run_page import PANELS, run_figures, run_page
from gnnrl_lightning.surrogate.sensitivity import NO_CHANNEL
from tests.support.results import METRICS, RESULT, candidate, run_record


@pytest.fixture(scope="module")
def page():
    return run_page(run_record())


def drawn(record):
    with styled():
        return dict(run_figures(record))


def test_a_run_with_all_files_has_every_figure():
    assert list(drawn(run_record())) == list(PANELS)


UNTIMED = {
    **{name: value for name, value in RESULT.items() if name != "other_latency_ms"},
    "layers": [{name: layer[name] for name in ("name", "macs")} for layer in RESULT["layers"]],
}
WITHOUT = {
    "result": ({"result": None}, {"widths", "layers", "times"}),
    "times": ({"result": UNTIMED}, {"times"}),
    "candidates": ({"candidates": ()}, {"candidates", "search"}),
    "metrics": ({"metrics": ()}, {"policy", "surrogate", "learning"}),
    "losses": ({"losses": None}, {"sensitivity"}),
}


@pytest.mark.parametrize("missing", WITHOUT)
def test_what_a_run_lacks_is_left_out(missing):
    changes, left_out = WITHOUT[missing]
    record = run_record(**changes)
    assert set(PANELS) - set(drawn(record)) == left_out
    page = run_page(record)
    assert all((PANELS[name].heading in page) == (name not in left_out) for name in PANELS)


def test_times_of_layers_and_of_all_other_operators():
    axes = drawn(run_record())["times"].axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["conv1", "layer1", "others"]
    dense, ours = ([bar.get_height() for bar in bars] for bars in axes.containers)
    assert dense == [6.0, 2.0, 0.5] and ours == [3.25, 1.0, 0.125]
    assert "MACs and times of all layers" in run_page(run_record())
    assert "MACs of all layers" in run_page(run_record(result=UNTIMED))


def test_groups_of_one_channel_and_of_none_are_named():
    record = run_record()
    losses = replace(record.losses, ratios=(NO_CHANNEL, *record.losses.ratios[1:]))
    legends = [drawn(each)["sensitivity"].legends[0] for each in (record, replace(record, losses=losses))]
    labels = [{text.get_text() for text in legend.get_texts()} for legend in legends]
    assert record.losses.ratios[0] == 0
    assert labels[0] - labels[1] == {"one channel"} and labels[1] - labels[0] == {"no channel"}


def test_the_page_needs_nothing_else(page):
    assert not re.search(r'(?:src|href)="(?!#)', page) and "<script" not in page and "@import" not in page
    assert "prefers-color-scheme: dark" in page and 'name="viewport"' in page


def test_figures_follow_the_mode(page):
    """No colour is fixed within a figure: each is a variable that both modes define."""
    figures = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(figures) == len(PANELS)
    for figure in figures:
        xml.dom.minidom.parseString(figure)
        assert re.findall(r"#[0-9a-fA-F]{6}\b", figure) == []
    used = set(re.findall(r"var\(--(\w+)\)", page))
    assert used <= set(PALETTE) and {"ours", "uniform", "dense", "ink"} <= used
    light, dark = (set(re.findall(r"--(\w+):", part)) for part in page.split("@media")[:2])
    assert light == dark == set(PALETTE)


class _Ids(HTMLParser):
    def __init__(self):
        super().__init__()
        self.ids, self.links = [], []

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.ids += [values["id"]] if "id" in values else []
        self.links += re.findall(r"url\(#([^)]+)\)", values.get("clip-path", ""))
        self.links += [values["xlink:href"][1:]] if "xlink:href" in values else []


def test_ids_are_unique_and_found(page):
    found = _Ids()
    found.feed(page)
    assert len(found.ids) == len(set(found.ids)) and found.links and set(found.links) <= set(found.ids)


def test_text_is_escaped(page):
    assert "layer1.&lt;0&gt;.conv1" in page and "layer1.<0>" not in page


def test_the_same_run_gives_the_same_page(page):
    assert run_page(run_record()) == page


def test_names_with_dollar_signs_are_no_formulas():
    page = run_page(run_record(result={**RESULT, "groups": {"a$b": 16, "$x_$1": 32}}))
    assert ">a$b</text>" in page and ">$x_$1</text>" in page and r">$\mathdefault" not in page


def test_an_unfinished_run_says_how_far_it_is():
    page = run_page(run_record(result=None))
    assert "This run has no result.json; candidates evaluated: 4." in page


def test_scores_that_are_not_finite_are_told():
    record = run_record(candidates=(candidate("uniform", 80.0, 0.4), candidate("agent", None, 0.5, merit=-1.0)))
    assert "infinite" in run_page(record)


def test_far_worse_candidates_do_not_flatten_the_others():
    near = [candidate("agent", 90 + 0.1 * i, 0.4 + 0.01 * i) for i in range(9)]
    figure = drawn(run_record(candidates=[candidate("uniform", 10.0, 0.5), *near]))["candidates"]
    low, high = figure.axes[0].get_ylim()
    assert 85 < low < 90 and 90.8 < high < 92
    assert figure.axes[0].get_title(loc="right") == "1 worse one below"


def test_counts_have_whole_numbers_on_their_axes():
    """One epoch, and two rounds of evaluations."""
    figures = drawn(run_record())
    for name in ("policy", "surrogate", "learning"):
        (low, high), ticks = figures[name].axes[-1].get_xlim(), figures[name].axes[-1].get_xticks()
        assert all(tick == int(tick) for tick in ticks if low <= tick <= high), name


def test_lines_of_the_console_are_sentences():
    assert sentence("files: weights 3 kB") == "Files: weights 3 kB."
    assert sentence("Latency is met.") == "Latency is met."


def test_what_a_search_has_found_for_other_budgets_is_a_table(page):
    rows = [{"macs_budget": share, "macs_ratio": share - 0.01, "top1_search": 90 * share} for share in (0.3, 0.7)]
    search = {**RESULT["search"], "front": rows}
    found = run_page(run_record(result={**RESULT, "search": search}))
    assert "Other budgets" not in page and "Other budgets" in found and "MACs kept" in found
    assert all(f"<td>{cell}</td>" in found for cell in ("0.7", "69.0 %", "63.00"))


def test_a_search_over_a_range_has_no_distance_from_the_best_candidate():
    metrics = [{name: value for name, value in row.items() if name != "search/distance"} for row in METRICS]
    assert "surrogate" in drawn(run_record(metrics=metrics))


def test_curves_are_named_by_network_and_split():
    """One entry for each network in the order of training, and one for the holdout, whose lines are dashed."""
    stage = {f"stage-1/{name}": value for name, value in METRICS[-1].items()}
    figure = drawn(run_record(metrics=[*METRICS, stage]))["learning"]
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["dense", "stage 1", "ours", "on the holdout"]


def test_numbers_on_the_axes_are_those_of_the_tables(page):
    for name, number, cells in (("layer1.&lt;0&gt;.conv1", 2, "32 16 9"), ("layer1", 2, "500,000 298,000 200,000")):
        row = [f"<code>{name}</code>", str(number), *cells.split()]
        assert "".join(f"<td>{cell}</td>" for cell in row) in page


def test_short_names_are_written_horizontally():
    short = {**RESULT, "groups": {"0": 16, "2": 32}}
    for result, rotation in ((short, 0), ({**RESULT, "groups": {"a" * 25: 16, "b" * 25: 32}}, 90)):
        labels = drawn(run_record(result=result))["widths"].axes[0].get_xticklabels()
        assert [label.get_rotation() for label in labels] == [rotation] * 2


def test_evaluations_that_are_no_candidates_are_told(page):
    assert "in 96 evaluations, 42 s; candidates: 4, the other evaluations are converted passes over examples." in page
    search = {**RESULT["search"], "evaluations": 4}
    assert "converted passes" not in run_page(run_record(result={**RESULT, "search": search}))


def test_a_figure_that_should_be_low_is_said_to_be(page):
    objective = {**RESULT["objective"], "higher_is_better": False}
    other = run_page(run_record(objective=objective, result={**RESULT, "objective": objective}))
    assert "top-1: lower is better." in other and "lower is better" not in page
