import json
import re

import pytest
import yaml
from safetensors.torch import load_file

from gnnrl_lightning.cli import main
from tests.cli.refused import assert_refused
from tests.support.workplace import ROUNDS

POLICIES = """
import torch
from torch import nn

from gnnrl_lightning.rl.policies import graph_mean, sum_over_decisions


class Encoder(nn.Module):
    def __init__(self, state_dim, out_features=6):
        super().__init__()
        self.out_features, self.layer = out_features, nn.Linear(state_dim, out_features)

    def forward(self, state):
        return self.layer(state.x).tanh()


class Actor(nn.Module):
    def __init__(self, state_dim, action_dim, numbers=2):
        super().__init__()
        self.layer = nn.Linear(state_dim, numbers * action_dim)

    def forward(self, state):
        return 0.1 * self.layer(graph_mean(state.x, state)).view(-1, 2)


class Listing(Actor):
    def forward(self, state):
        return super().forward(state).tolist()


class Detached(Actor):
    def forward(self, state):
        return super().forward(state).detach()


class Critic(nn.Module):
    def __init__(self, state_dim: int, action_dim: int, nan: bool = False):
        super().__init__()
        self.layer, self.nan = nn.Linear(state_dim, 1), nan

    def forward(self, state):
        values = self.layer(graph_mean(state.x, state))[:, 0].tanh()
        return values / 0 * 0 if self.nan else values


class ListingCritic(Critic):
    def forward(self, state):
        return super().forward(state).tolist()


class DetachedCritic(Critic):
    def forward(self, state):
        return super().forward(state).detach()


class Whole(nn.Module):
    def __init__(self, state_dim, action_dim):
        super().__init__()
        self.mean, self.value = nn.Linear(state_dim, action_dim), nn.Linear(state_dim, 1)

    def distribution(self, state):
        return torch.distributions.Normal(graph_mean(self.mean(state.x), state).sigmoid().flatten(), 0.1)

    @torch.no_grad()
    def act(self, state):
        action = self.distribution(state).sample()
        return action, sum_over_decisions(self.distribution(state).log_prob(action), state)

    def evaluate(self, state, action):
        found = self.distribution(state)
        value = graph_mean(self.value(state.x), state)[:, 0]
        log_prob, entropy = found.log_prob(action), found.entropy()
        return sum_over_decisions(log_prob, state), value, sum_over_decisions(entropy, state)


class NoPolicy(nn.Module):
    def __init__(self, state_dim, action_dim):
        super().__init__()


def raising(evaluation):
    return evaluation.beauty


def nothing(evaluation):
    return float("nan")


def for_each_mac_saved(evaluation):
    return -(100 - evaluation.scores["top1"]) / (13_464 - evaluation.costs["macs"])
"""


@pytest.fixture(scope="module")
def policies(workplace):
    """A module with policies and rewards of a user's own, most of them without type hints."""
    (workplace / "own_policies.py").write_text(POLICIES)
    return workplace


AGENT = "gnnrl_lightning.rl.policies.Agent"
OWN = {
    "encoder": {"class_path": AGENT, "init_args": {"encoder": {"class_path": "own_policies.Encoder"}}},
    "actor": {"class_path": AGENT, "init_args": {"actor": {"class_path": "own_policies.Actor"}}},
    "critic": {"class_path": AGENT, "init_args": {"critic": {"class_path": "own_policies.Critic"}}},
    "both": {
        "class_path": AGENT,
        "init_args": {
            "actor": {"class_path": "own_policies.Actor", "init_args": {"numbers": 2}},
            "critic": {"class_path": "own_policies.Critic"},
            "distribution": "gnnrl_lightning.rl.policies.ClippedGaussian",
            "fixed_spread": True,
        },
    },
    "whole": {"class_path": "own_policies.Whole"},
}


@pytest.mark.parametrize("own", OWN)
def test_a_users_own_parts_are_named_in_the_yaml(policies, capsys, own):
    (policies / "own.yaml").write_text(yaml.safe_dump({"model": {"make_policy": OWN[own]}}))
    quick = ["--pretraining.epochs", "0", "--finetuning.epochs", "0", "--run.threads", "1"]
    name = f"own_{own}"
    configs = ["--config", "small.yaml", "--config", "rounds.yaml", "--config", "own.yaml"]
    main(["fit", *configs, *quick, "--run.name", name])
    search = json.loads((policies / "runs" / name / "result.json").read_text())["search"]
    lines = [json.loads(line) for line in (policies / "runs" / name / "journal.jsonl").read_text().splitlines()]
    # Twelve passes of 128 images.
    charged = search["examples"] - sum(line["examples"] for line in lines)
    assert charged == 12 * 128
    assert search["evaluations"] == -(-charged // (287 + 128)) + len(lines) <= ROUNDS["search"]["evaluations"]
    assert len(lines) > 6 and search["agent_best"] is not None
    weights = load_file(policies / "runs" / name / "checkpoints" / "policy.safetensors")
    part = {"encoder": "actor.decisions.encoder", "both": "actor"}.get(own, own)
    layer = {"whole": "mean.weight"}.get(own, f"{part}.layer.weight")
    assert layer in weights


def test_a_users_own_reward_may_divide_by_what_is_saved(policies, capsys):
    """No candidate is the dense network, which has 13,464 MACs."""
    quick = ["--pretraining.epochs", "0", "--finetuning.epochs", "0", "--run.threads", "1"]
    main(["fit", "--config", "small.yaml", "--episode.reward", "own_policies.for_each_mac_saved", *quick])
    assert "ours" in capsys.readouterr().out


BAD_PARTS = {
    "no such class": (["--model.make_policy", f"{AGENT}s"], r"model.make_policy.*no attribute 'Agents'"),
    "no policy": (["--model.make_policy", "own_policies.NoPolicy"], r"model.make_policy .* has no attribute 'act'"),
    "another number of outputs": (
        ["--model.make_policy.init_args.actor", "{class_path: own_policies.Actor, init_args: {numbers: 4}}"],
        r"model.make_policy cannot be made: the actor returns \(\d+, 2\): expected \(\d+, 2\) or \(\d+, 3\): loc",
    ),
    "a list of numbers": (
        ["--model.make_policy.init_args.actor", "own_policies.Listing"],
        r"cannot be made: the actor returns a list: expected a tensor of shape \(\d+, 2\) or \(\d+, 3\): loc",
    ),
    "a list of values": (
        ["--model.make_policy.init_args.critic", "own_policies.ListingCritic"],
        r"cannot be made: the critic returns a list: expected a tensor of shape \(8,\): a value for each graph",
    ),
    "an actor without gradients": (
        ["--model.make_policy.init_args.actor", "own_policies.Detached"],
        r"cannot be made: evaluate's log-probability has no gradient, so that its parameters cannot be trained",
    ),
    "a critic without gradients": (
        ["--model.make_policy.init_args.critic", "own_policies.DetachedCritic"],
        r"cannot be made: evaluate's value has no gradient, so that its parameters cannot be trained: expected tensors",
    ),
    "no numbers": (
        ["--model.make_policy.init_args.critic", "{class_path: own_policies.Critic, init_args: {nan: true}}"],
        r"model.make_policy cannot be made: evaluate's value is not finite",
    ),
    "a reward that fails": (
        ["--episode.reward", "own_policies.raising"],
        r"episode.reward 'own_policies.raising' fails: 'Evaluation' object has no attribute 'beauty'",
    ),
    "a reward that is no number": (
        ["--episode.reward", "own_policies.nothing"],
        r"episode.reward 'own_policies.nothing' is nan: expected a finite number",
    ),
}


@pytest.mark.parametrize("case", BAD_PARTS)
def test_what_a_user_gets_wrong_is_one_line_before_anything_is_scored(policies, capsys, case):
    assert_refused(capsys, policies, *BAD_PARTS[case])


LEARNERS = """
import torch
from gnnrl_lightning.rl.learners import GNNRL


class Forgetful(GNNRL):
    def __init__(self, decay: float = 0.1, **kwargs):
        self.decay = decay


class Closed(GNNRL):
    def __init__(self, decay: float = 0.1):
        super().__init__()


class Bare(GNNRL):
    def configure_model(self):
        self.extra = 1


class Dictionaries(GNNRL):
    def train_dataloader(self):
        yield {"observations": torch.ones(2)}


class Nothing(GNNRL):
    def train_dataloader(self):
        return []
"""

BAD_LEARNERS = {
    "no constructor": (
        ["--model", "{class_path: own_learners.Forgetful}"],
        r"^error: model: own_learners.Forgetful does not pass episodes_per_iteration on: expected \*\*kwargs and super",
    ),
    "no further arguments": (
        ["--model", "{class_path: own_learners.Closed, init_args: {gamma: 0.5}}"],
        r"^error: model: own_learners.Closed does not pass \w+ on: expected \*\*kwargs and super",
    ),
    "no policy": (
        ["--model", "{class_path: own_learners.Bare}"],
        r"^error: Bare.configure_model makes no policy: call super\(\).configure_model\(\) in it$",
    ),
}


@pytest.fixture(scope="module")
def learners(workplace):
    (workplace / "own_learners.py").write_text(LEARNERS)
    return workplace


@pytest.mark.parametrize("case", BAD_LEARNERS)
def test_what_a_learner_lacks_is_one_line_before_anything_is_scored(learners, capsys, case):
    assert_refused(capsys, learners, *BAD_LEARNERS[case])


def test_a_learner_that_clips_gradients_itself_refuses_those_of_the_trainer(learners, capsys):
    config = yaml.safe_load((learners / "small.yaml").read_text()) | {"model": {"class_path": "DDPG"}}
    (learners / "ddpg.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(SystemExit) as end:
        main(["fit", "--config", "ddpg.yaml", "--trainer.gradient_clip_val", "1"])
    said = "error: trainer.gradient_clip_val is 1, which DDPG does not read: set it to null, and model.max_grad_norm\n"
    assert end.value.code == 2 and capsys.readouterr().err == said


@pytest.mark.filterwarnings("ignore:Total length of .* across ranks is zero")  # Lightning's
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Dictionaries", "gives a dict: expected Transitions, as the loader of its base class"),
        ("Nothing", "gives no batches: expected those of the loader of its base class"),
    ],
)
def test_batches_that_the_training_step_does_not_read_are_one_line(learners, capsys, name, said):
    """Only once the search has begun: a loader plays episodes. Without batches no candidate is asked for."""
    given = ["--run.name", name, "--model", f"{{class_path: own_learners.{name}}}"]
    with pytest.raises(SystemExit) as end:
        main(["fit", "--config", "small.yaml", *given])
    error = capsys.readouterr().err
    assert end.value.code == 2 and re.search(rf"^error: {name}.train_dataloader {said}", error, re.M), error
