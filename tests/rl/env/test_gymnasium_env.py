import pytest
import torch
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env

from gnnrl_lightning.cost.budget import Budget
from gnnrl_lightning.rl.env import Evaluated, PruningEnv, VectorPruningEnv
from tests.support.fakes import TOP1, small_graph, small_landscape


def vector(budget=0.5, **settings):
    graph = small_graph()
    return VectorPruningEnv(graph, Budget(macs=budget).on(graph), Evaluated(small_landscape(), TOP1), **settings)


@pytest.mark.filterwarnings("ignore:.*(render|spec):UserWarning")
@pytest.mark.parametrize("max_steps", [1, 5])
def test_passes_the_gymnasium_checker(max_steps):
    check_env(PruningEnv(vector(max_steps=max_steps)), skip_render_check=True)


def test_a_step_before_the_first_reset_is_refused():
    env = PruningEnv(vector())
    with pytest.raises(ResetNeeded, match="call reset"):
        env.step([0.1] * 4)
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"actions have shape \(3,\): expected \(4,\), 4 for each of 1 episodes"):
        env.step([0.1] * 3)


def test_the_single_env_takes_ratios_and_shares_the_episode():
    env, batch = PruningEnv(vector()), vector()
    observation, info = env.reset(seed=1)
    assert info["widths"] == small_graph().widths.tolist()
    batch.reset(1)
    terminated = False
    while not terminated:
        observation, reward, terminated, truncated, info = env.step([0.06] * 4)
        _, rewards, _ = batch.step(torch.full((4,), 0.2))
        assert not truncated
        assert info["widths"] == batch.widths[0].tolist()
        assert reward == pytest.approx(rewards.item())
    assert observation.nodes.shape == (vector().builder.num_nodes, batch.state_dim)


def test_a_network_within_budget_is_scored_by_the_first_step():
    graph = small_graph()
    env = PruningEnv(vector(int(graph.cost.macs(graph.widths))))
    env.reset()
    _, reward, terminated, _, info = env.step([0.3] * 4)
    assert terminated and info["widths"] == graph.widths.tolist()
    assert reward == pytest.approx(-(0.3**2))  # every keep ratio is 1, the landscape's best 0.7
