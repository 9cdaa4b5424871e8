import numpy as np
import pytest
import torch

from gnnrl_lightning.tracing.labels import FIXED, ZERO, Labels, Use, Value, compact, support, vector


@pytest.fixture
def labels():
    return Labels()


def t(*numbers):
    return torch.tensor(numbers)


def same(labels, *numbers):
    """Whether these labels are one channel."""
    channel = labels.solve()
    return len({int(channel[number]) for number in numbers}) == 1


def test_fresh_labels_are_new_channels(labels):
    assert labels.fresh(3).tolist() == [0, 1, 2]
    assert labels.fresh(2).tolist() == [3, 4]
    assert labels.solve().tolist() == [0, 1, 2, 3, 4]


def test_joining_is_transitive_and_elementwise(labels):
    a, b, c = labels.fresh(2), labels.fresh(2), labels.fresh(2)
    labels.join(a, b, "add", "")
    labels.join(b, c, "add", "")
    assert same(labels, 0, 2, 4) and same(labels, 1, 3, 5) and not same(labels, 0, 1)
    assert len(np.unique(labels.solve())) == 2


def test_the_result_of_a_join_is_one_of_the_joined(labels):
    a, b = labels.fresh(2), labels.fresh(2)
    result = labels.join(a, b, "add", "")
    assert all(same(labels, int(result[i]), int(a[i])) for i in range(2))


def test_joining_broadcasts(labels):
    a = vector(labels.fresh(3), 4, 1)
    result = labels.join(a, labels.fresh(1), "mul", "")
    assert result.shape == (1, 3, 1, 1) and same(labels, 0, 1, 2, 3)


def test_zero_passes_the_other_label_and_joins_nothing(labels):
    labels.fresh(4)
    result = labels.join(t(0, ZERO, ZERO, 1), t(2, 3, ZERO, ZERO), "add", "")
    assert result.tolist() == [2, 3, ZERO, 1] or result.tolist() == [0, 3, ZERO, 1]
    assert same(labels, 0, 2)
    assert not labels.frozen and len(np.unique(labels.solve())) == 3


def test_fixed_freezes_what_it_meets(labels):
    labels.fresh(2)
    result = labels.join(t(0, 1, FIXED, FIXED), t(FIXED, ZERO, ZERO, FIXED), "add", "net (net.py:3)")
    (freeze,) = labels.frozen
    assert freeze.labels.tolist() == [0]
    assert (freeze.operator, freeze.source) == ("add", "net (net.py:3)")
    assert result[1] == 1 and result[2] == FIXED and result[3] == FIXED


def test_freezing_ignores_what_is_no_label(labels):
    labels.fresh(2)
    labels.freeze(t(FIXED, ZERO), "output", "", "is an output")
    assert labels.frozen == []
    labels.freeze(t(FIXED, 1, ZERO), "output", "", "is an output")
    assert labels.frozen[0].labels.tolist() == [1]


def test_tied_rows_are_tagged_one_by_one(labels):
    """The rows of a tie are different index sets, even if they are otherwise equal."""
    rows = labels.fresh(6).reshape(2, 3)
    labels.tie(rows, "chunk", "")
    assert [tag.tolist() for tag in labels.tagged] == [[0, 1, 2], [3, 4, 5]]
    assert torch.equal(labels.rows[0].labels, rows)


def test_labels_without_facts():
    assert Labels().solve().tolist() == []


def test_compact_keeps_only_the_dimensions_that_change():
    labels = vector(torch.arange(5), 4, 1).expand(2, 5, 3, 3)
    assert compact(labels).shape == (1, 5, 1, 1)
    assert support(compact(labels)) == (1,)
    assert compact(torch.full((2, 3), 7)).tolist() == [[7]]


def test_labels_along_a_dimension():
    value = Value((6, 3, 1, 1), (vector(torch.arange(6), 4, 0), vector(torch.arange(6, 9), 4, 1)))
    assert value.along(0).tolist() == [0, 1, 2, 3, 4, 5]
    assert value.along(-3).tolist() == [6, 7, 8]
    assert value.along(2) is None
    assert len(value.others(0)) == 1 and torch.equal(value.others(0)[0], value.labels[1])


def split_in_two_rows(joined):
    """Six labels that a view has split into two rows of three; these labels are joined."""
    labels = Labels()
    six = labels.fresh(6).reshape(2, 3)
    labels.splits.append(Use(six, "view", "here"))
    for a, b in joined:
        labels.join(six[a], six[b], "conv", "there")
    return labels.settle(labels.solve())


def test_the_last_dimension_of_a_split_shrinks():
    rows, tagged = split_in_two_rows([])
    assert [row.labels.tolist() for row in rows] == [[[0, 1, 2], [3, 4, 5]]]
    assert [tag.tolist() for tag in tagged] == [[0, 1, 2], [3, 4, 5]]


def test_a_dimension_whose_channels_are_read_together_does_not_shrink():
    """Each row is one channel: the two rows are channels, and need not keep equal counts of anything."""
    rows, tagged = split_in_two_rows([((slice(None), slice(0, 1)), (slice(None), slice(1, None)))])
    assert rows == [] and [tag.tolist() for tag in tagged] == [[0, 3]]


def test_columns_that_are_read_together():
    rows, tagged = split_in_two_rows([(0, 1)])
    assert rows == [] and [tag.tolist() for tag in tagged] == [[0, 1, 2]]
