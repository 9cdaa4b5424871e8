import pytest
import torch
from safetensors.torch import save_file

from gnnrl_lightning.errors import UserError
from gnnrl_lightning.rl.policies import AblatedAgent, Agent, SquashedGaussian, load_policy, save_policy
from gnnrl_lightning.rl.state.builder import NODE_DIM, StateBuilder
from tests.support.fakes import small_graph


def state():
    return StateBuilder(small_graph())(small_graph().widths[None] // 2, torch.tensor([[0.5, 1.0]]))


def test_a_policy_comes_back_as_it_was(tmp_path):
    torch.manual_seed(0)
    policy, other = Agent(NODE_DIM, 4), Agent(NODE_DIM, 4)
    policy.centre_on(0.3, 0.1)
    save_policy(policy, tmp_path / "policy.safetensors")
    assert not torch.equal(other.mode(state()), policy.mode(state()))
    load_policy(other, tmp_path / "policy.safetensors")
    assert torch.equal(other.mode(state()), policy.mode(state()))
    assert torch.equal(other.state_value(state()), policy.state_value(state()))


def test_a_policy_has_the_same_bytes_whenever_it_is_written(tmp_path):
    policy, setting = Agent(NODE_DIM, 4), {name: name for name in "abcdef"}
    written = set()
    for number in range(10):
        save_policy(policy, tmp_path / str(number), setting)
        written.add((tmp_path / str(number)).read_bytes())
    assert len(written) == 1


def test_a_policy_of_another_setting_or_make_is_refused(tmp_path):
    """Its weights fit, and its actions would mean something else."""
    path, setting = tmp_path / "policy", {"search.sensitivity": "sensitivity", "episode.max_steps": "1"}
    save_policy(Agent(NODE_DIM, 4), path, setting)
    load_policy(Agent(NODE_DIM, 4), path, setting)
    load_policy(Agent(NODE_DIM, 4), path)  # without a setting
    with pytest.raises(UserError, match=r"was trained with episode.max_steps 1, here it is 5"):
        load_policy(Agent(NODE_DIM, 4), path, setting | {"episode.max_steps": "5"})
    with pytest.raises(UserError, match=r"with distribution gnnrl_.*\.LogKeep, here it is gnnrl_.*\.SquashedGaussian"):
        load_policy(Agent(NODE_DIM, 4, distribution=SquashedGaussian), path)
    save_policy(AblatedAgent(NODE_DIM, 4, "no_messages"), path)
    with pytest.raises(UserError, match=r"was trained with ablation no_messages, here it is constant_state"):
        load_policy(AblatedAgent(NODE_DIM, 4, "constant_state"), path)


def test_a_shared_head_fits_networks_of_other_sizes_and_codes_do_not(tmp_path):
    save_policy(Agent(NODE_DIM, 4, head="node"), tmp_path / "node")
    load_policy(Agent(NODE_DIM, 9, head="node"), tmp_path / "node")
    save_policy(Agent(NODE_DIM, 4), tmp_path / "codes")
    with pytest.raises(UserError, match=r"codes of shape \(4, 32\), this network needs \(9, 32\): only policies"):
        load_policy(Agent(NODE_DIM, 9), tmp_path / "codes")


def test_what_is_no_policy_is_refused(tmp_path):
    policy = Agent(NODE_DIM, 4)
    with pytest.raises(UserError, match="there is no file"):
        load_policy(policy, tmp_path / "none")
    with pytest.raises(UserError, match="is a folder: expected a file"):
        load_policy(policy, tmp_path)
    (tmp_path / "text").write_text("no tensors")
    with pytest.raises(UserError, match="is not a policy file"):
        load_policy(policy, tmp_path / "text")
    save_file({}, tmp_path / "list", {"beside": "[1]"})
    with pytest.raises(UserError, match=r"is not a policy file: its metadata is \[1\]"):
        load_policy(policy, tmp_path / "list")
    save_policy(Agent(NODE_DIM, 4, head="graph"), tmp_path / "graph")
    with pytest.raises(UserError, match="has another architecture"):
        load_policy(policy, tmp_path / "graph")
