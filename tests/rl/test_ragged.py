import pytest
import torch

from gnnrl_lightning.rl.ragged import Ragged, concatenated, from_plain, plain
from gnnrl_lightning.rl.state.assemble import join_states, state_from

LISTS = [[0.0], [], [1.0, 2.0, 3.0], [4.0, 5.0]]


def ragged(lists):
    return Ragged(torch.tensor([value for row in lists for value in row]), torch.tensor([len(row) for row in lists]))


def lists(rows):
    return [part.tolist() for part in rows.values.split(rows.counts.tolist())]


@pytest.mark.parametrize("index", [[0, 1, 2, 3], [3, 0, 2], [2, 2, 1], []])
def test_rows_are_picked_as_of_a_list_of_lists(index):
    assert lists(ragged(LISTS)[torch.tensor(index, dtype=torch.int64)]) == [LISTS[number] for number in index]


def test_masks_pick_rows_in_their_order_also_those_of_several_dimensions():
    mask = torch.tensor([[True, False], [True, True]])
    assert lists(ragged(LISTS)[mask]) == [LISTS[0], LISTS[2], LISTS[3]]


def test_rows_are_joined_and_survive_a_checkpoint(tmp_path):
    rows = concatenated([ragged(LISTS), ragged(LISTS[2:])])
    assert lists(rows) == LISTS + LISTS[2:] and len(rows) == 6
    torch.save(plain(rows), tmp_path / "rows.pt")
    assert lists(from_plain(torch.load(tmp_path / "rows.pt", weights_only=True))) == lists(rows)
    assert torch.equal(concatenated([torch.ones(1, 2), torch.zeros(2, 2)])[:, 0], torch.tensor([1.0, 0, 0]))


def test_rows_of_a_batch_are_the_decisions_of_its_graphs():
    edge = torch.tensor([[0], [1]])
    state = join_states([state_from(torch.zeros(3, 1), edge), state_from(torch.zeros(2, 2, 1), edge)])
    assert lists(Ragged.of(torch.arange(7.0), state)) == [[0, 1, 2], [3, 4], [5, 6]]
