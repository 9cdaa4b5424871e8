import pytest
import torch

from gnnrl_lightning.report.lanes import assign_lanes, split_rows

BLOCK = [(0, 1), (1, 2), (2, 3), (3, 4), (1, 4), (4, 5)]  # a residual block: node 1 is read by 2 and by the sum, 4


def test_a_shortcut_runs_beside_the_main_line():
    lanes = assign_lanes(6, BLOCK)
    assert lanes.lane == (0,) * 6
    assert lanes.edges == ((0, 0), (0, 1), (0, 2), (0, 3), (1, 2), (0, 4))


def test_no_line_runs_through_a_node_and_no_two_sources_share_a_place():
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        nodes = 12
        pairs = {(i - 1, i) for i in range(1, nodes)} if torch.rand(1, generator=generator) < 0.5 else set()
        for _ in range(10):
            a, b = sorted(torch.randperm(nodes, generator=generator)[:2].tolist())
            pairs.add((a, b))
        edges = sorted(pairs)
        lanes = assign_lanes(nodes, edges)
        owner = {(row, lane): row for row, lane in enumerate(lanes.lane)}
        for (source, target), (run, turn) in zip(edges, lanes.edges, strict=True):
            for row in range(source + 1, target):
                place = (row, lanes.lane[source] if row < turn else run)
                assert owner.setdefault(place, source) == source


def test_edges_run_downwards():
    with pytest.raises(ValueError, match="to a later one"):
        assign_lanes(2, [(1, 0)])


def test_rows_are_split_where_few_edges_are_cut():
    columns = split_rows(12, [*BLOCK, *[(a + 5, b + 5) for a, b in BLOCK], (10, 11)], 8)
    assert columns == [range(0, 6), range(6, 12)]
    assert [len(column) for column in split_rows(100, [(i, i + 1) for i in range(99)], 40)] == [34, 33, 33]
    assert split_rows(5, [], 10) == [range(0, 5)]
