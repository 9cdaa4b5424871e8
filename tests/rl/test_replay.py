import pytest
import torch

from gnnrl_lightning.rl.ragged import Ragged
from gnnrl_lightning.rl.replay import Replay, ReplayLoader, Steps


def steps(numbers, shares=None, totals=None):
    rows = torch.tensor(numbers, dtype=torch.float32)
    shares = torch.ones_like(rows) if shares is None else torch.tensor(shares)
    totals = rows if totals is None else torch.tensor(totals)
    actions = Ragged(rows.repeat_interleave(2), torch.full((len(rows),), 2))
    return Steps(rows[:, None], actions, rows, shares, totals, rows[:, None] + 1, rows > 2)


def held(replay):
    return replay.state_dict()["rows"]["rewards"].tolist()


def test_new_steps_take_the_places_of_the_oldest():
    replay = Replay(5)
    replay.add(steps([0, 1, 2]))
    assert len(replay) == 3 and held(replay) == [0, 1, 2]
    replay.add(steps([3, 4, 5, 6]))
    assert len(replay) == 5 and held(replay) == [5, 6, 2, 3, 4]
    replay.add(steps([7]))
    assert held(replay) == [5, 6, 7, 3, 4]
    replay.add(steps(list(range(8, 20))))
    assert sorted(held(replay)) == [15, 16, 17, 18, 19]
    replay.add(steps([20]))
    assert sorted(held(replay)) == [16, 17, 18, 19, 20]


def test_all_fields_of_a_step_stay_together():
    replay = Replay(4)
    for first in range(5):
        replay.add(steps([3 * first, 3 * first + 1, 3 * first + 2]))
    batch = replay.sample(50, torch.Generator().manual_seed(0))
    assert len(batch) == 50 and set(batch.rewards.tolist()) == {11, 12, 13, 14}
    assert torch.equal(batch.observations[:, 0], batch.rewards)
    assert torch.equal(batch.actions.values, batch.rewards.repeat_interleave(2))
    assert torch.equal(batch.next_observations[:, 0], batch.rewards + 1)
    assert torch.equal(batch.done, batch.rewards > 2)


def test_moments_are_those_of_episodes():
    """Episodes with rewards 1 (one step) and 5 (two steps): mean 3, deviation 2, for any shares of the baseline."""
    for shares in ([1.0, 0.0, 1.0], [1.0, 0.5, 0.5]):
        replay = Replay(9)
        replay.add(steps([1, 2, 3], shares, [1.0, 5.0, 5.0]))
        assert [moment.item() for moment in replay.moments()] == [3, 2]


def test_a_checkpoint_holds_it_as_plain_tensors(tmp_path):
    whole, other = Replay(4), Replay(4)
    whole.add(steps([0, 1, 2, 3, 4]))
    torch.save(whole.state_dict(), tmp_path / "replay.pt")
    other.load_state_dict(torch.load(tmp_path / "replay.pt", weights_only=True))
    for replay in (whole, other):
        replay.add(steps([5, 6]))
    assert held(whole) == held(other) == [5, 6, 3, 4]


def test_what_was_saved_does_not_change_with_the_replay():
    replay = Replay(2)
    replay.add(steps([0, 1]))
    saved = replay.state_dict()
    replay.add(steps([2]))
    assert saved["rows"]["rewards"].tolist() == [0, 1]


def loader(played, seed=0, rank=0):
    replay = Replay(20)

    def play(iteration):
        played.append(iteration)
        replay.add(steps(list(range(6))))

    return ReplayLoader(play, replay, lambda: 3, 4, 5, seed=seed, rank=rank), replay


def test_an_iteration_is_played_once_and_dealt_into_minibatches():
    played = []
    batches = list(loader(played)[0])
    assert played == [3] and [len(batch) for batch in batches] == [5] * 4
    again, other = list(loader([])[0]), list(loader([], rank=1)[0])
    assert all(torch.equal(a.rewards, b.rewards) for a, b in zip(batches, again, strict=True))
    assert not all(torch.equal(a.rewards, b.rewards) for a, b in zip(batches, other, strict=True))


@pytest.mark.parametrize("dealt", [1, 3])
def test_a_stopped_iteration_goes_on_where_it_was(dealt):
    whole = [batch.rewards for batch in loader([])[0]]
    first, replay = loader([])
    begun = iter(first)
    for _ in range(dealt):
        next(begun)
    played = []
    second, empty = loader(played)
    second.load_state_dict(first.state_dict())
    empty.load_state_dict(replay.state_dict())
    rest = [batch.rewards for batch in second]
    assert played == [] and all(torch.equal(a, b) for a, b in zip(whole[dealt:], rest, strict=True))
    assert second.state_dict() == {"dealt": 0}
