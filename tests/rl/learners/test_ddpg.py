import logging
from functools import partial

import lightning.pytorch as pl
import pytest
import torch
from jsonargparse import ArgumentParser
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CSVLogger
from torch import nn

from gnnrl_lightning.cost.budget import Budget
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.rl.encoders import GCN
from gnnrl_lightning.rl.env import Evaluated, VectorPruningEnv
from gnnrl_lightning.rl.learners import DDPG
from gnnrl_lightning.rl.policies import DDPGAgent
from tests.rl.learners.test_gnnrl import equal, trainer, weights
from tests.support.fakes import TOP1, Landscape, RingTask, SaveAt, small_graph

pytestmark = [
    pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*number of training batches .* is smaller than the logging interval"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks used to create"),
    pytest.mark.filterwarnings("ignore:GPU available but not used"),
]
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

SMALL = partial(DDPGAgent, encoder=partial(GCN, hidden=16, layers=1))


def ring(**settings):
    defaults = {"episodes_per_iteration": 8, "gradient_steps": 3, "batch_size": 8, "replay_capacity": 20}
    return DDPG(RingTask(), SMALL, **(defaults | settings))


def hidden_target(max_steps):
    """A landscape whose optimum, 100, is within the budget; uniform pruning scores 77.5, random widths 49."""
    graph = small_graph()
    limits = Budget(macs=0.5).on(graph)
    target = limits.project(torch.tensor([[15, 8, 20, 20]]))[0] / graph.widths
    landscape = Landscape(graph, target, torch.full((4,), 4.0))
    return VectorPruningEnv(graph, limits, Evaluated(landscape, TOP1), max_steps=max_steps)


@pytest.mark.slow
def test_learns_a_task_far_from_pruning():
    """The best answer without messages has -1/24; neighbours' heights are needed for more."""
    module = ring(episodes_per_iteration=32, gradient_steps=20, batch_size=32, replay_capacity=2000, seed=1)
    trainer(25).fit(module)
    task = RingTask()
    heights, _ = task.reset(500, torch.Generator().manual_seed(99))
    assert task.step(module.policy.mode(task.graphs(heights)))[1].mean() > -1 / 24 / 2


@pytest.mark.parametrize("max_steps, iterations", [(1, 12), (5, 18)])
def test_solves_a_landscape_with_a_known_optimum(max_steps, iterations):
    """Within 5 % of the optimum after 96 evaluations in episodes of one step, and after 144 in longer ones."""
    env = hidden_target(max_steps)
    trainer(iterations).fit(module := DDPG(env, SMALL, episodes_per_iteration=8))
    assert env.evaluations == 8 * iterations
    evaluator = env.score.evaluator
    scores = torch.stack([evaluator.top1(torch.tensor(widths)) for widths, _ in evaluator.calls])
    observations, done = env.reset(1)
    while not done.all():
        observations, reward, done = env.step(module.policy.mode(env.graphs(observations)))
    # The best candidate, and what the policy does without noise.
    assert scores.max() > 95 and 100 + 100 * float(reward) > 95
    assert scores[-16:].mean() > scores[:16].mean() + 10


def test_same_seed_same_weights_other_seed_other_weights():
    first, again, other = ring(), ring(), ring(seed=1)
    for module in (first, again, other):
        trainer(2).fit(module)
    assert equal(weights(first), weights(again))
    assert not equal(weights(first), weights(other))


# Two optimizers take a step in each minibatch, one alone in the first iteration: 3 + 6 steps after two.
@pytest.mark.parametrize("step", [3, 5, 9])
def test_goes_on_from_a_checkpoint_bit_by_bit(tmp_path, step):
    whole, begun, resumed = ring(), ring(), ring()
    trainer(5).fit(whole)
    trainer(2, callbacks=[SaveAt(step, tmp_path / "begun.ckpt")]).fit(begun)
    torch.manual_seed(17)  # nothing may depend on torch's generator
    trainer(5).fit(resumed, ckpt_path=tmp_path / "begun.ckpt", weights_only=True)
    assert equal(weights(whole), weights(resumed))
    saved, kept = whole.replay.state_dict(), resumed.replay.state_dict()
    actions = [state["rows"].pop("actions") for state in (saved, kept)]
    assert saved["next"] == kept["next"] and equal(saved["rows"].values(), kept["rows"].values())
    assert equal(actions[0].values(), actions[1].values())
    assert resumed.evaluations == 40 and len(resumed.replay) == 20


def test_goes_on_in_the_middle_of_episodes_of_several_steps(tmp_path):
    def module():
        return DDPG(hidden_target(3), SMALL, gradient_steps=3, batch_size=8, credit="even")

    whole, begun, resumed = module(), module(), module()
    trainer(3).fit(whole)
    trainer(2, callbacks=[SaveAt(5, tmp_path / "begun.ckpt")]).fit(begun)
    trainer(3).fit(resumed, ckpt_path=tmp_path / "begun.ckpt", weights_only=True)
    assert equal(weights(whole), weights(resumed))


def test_critic_learns_first_and_target_networks_follow():
    class Follow(Callback):
        def on_train_batch_start(self, trainer, module, *_):
            self.before = [p.clone() for p in module.target.parameters()]

        def on_train_batch_end(self, trainer, module, *_):
            pairs = zip(self.before, module.target.parameters(), module.policy.parameters(), strict=True)
            for before, slow, fast in pairs:
                torch.testing.assert_close(slow, 0.25 * fast + 0.75 * before)

    module = ring(tau=0.25, critic_iterations=2)
    module.configure_model()
    actor = [p.clone() for p in module.policy.actor.parameters()]
    critic = [p.clone() for p in module.policy.critic.parameters()]
    trainer(2, callbacks=[Follow()]).fit(module)
    assert equal(actor, module.policy.actor.parameters())
    assert not equal(critic, module.policy.critic.parameters())
    module = ring(critic_iterations=0)
    trainer(1).fit(module)
    assert not equal(actor, module.policy.actor.parameters())


def test_each_part_has_its_own_clipping():
    limit = 1e-4

    class Norms(Callback):
        def on_before_optimizer_step(self, trainer, module, optimizer):
            gradients = [p.grad for group in optimizer.param_groups for p in group["params"]]
            norms.append(torch.stack([g.norm() for g in gradients]).norm().item())

    norms = []
    trainer(2, callbacks=[Norms()]).fit(ring(max_grad_norm=limit))
    assert len(norms) == 9 and norms == pytest.approx([limit] * 9, rel=1e-2)


def test_scale_and_shift_of_rewards_do_not_matter():
    first, second = ring(), ring()
    step = second.env.step
    second.env.step = lambda actions: (lambda o, r, d: (o, 1000 * r + 256, d))(*step(actions))
    for module in (first, second):
        trainer(3).fit(module)
    for a, b in zip(first.policy.parameters(), second.policy.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=2e-3, rtol=0)


def test_two_fidelities_count_real_evaluations_alone():
    module = ring(proxy=RingTask(), proxy_warmup=2, proxy_between=1, proxy_episodes=5)
    assert module.iterations(3) == 7
    trainer(7).fit(module)
    assert module.evaluations == module.env.evaluations == 24 and module.proxy.evaluations == 20


def test_logs_its_metrics(tmp_path):
    trainer(3, logger=CSVLogger(tmp_path, name="run", version="0"), log_every_n_steps=1).fit(ring())
    lines = (tmp_path / "run/0/metrics.csv").read_text().splitlines()
    names = lines[0].split(",")
    rows = [dict(zip(names, line.split(","), strict=True)) for line in lines[1:]]
    expected = {f"losses/{part}{what}" for part in ("actor", "critic") for what in ("", "_grad_norm")}
    expected |= {f"rollout/{name}" for name in ("reward_mean", "reward_best", "steps", "spread")}
    assert expected | {"search/evaluations", "charts/eps"} <= set(names)
    assert [float(row["search/evaluations"]) for row in rows] == [8, 16, 24]
    assert [float(row["rollout/spread"]) for row in rows] == pytest.approx([0.2, 0.18, 0.162])
    assert all(float(row["rollout/reward_mean"]) <= float(row["rollout/reward_best"]) for row in rows)


def test_env_may_come_late_but_must_come():
    module = DDPG(make_policy=SMALL)
    with pytest.raises(UserError, match="DDPG has no environment"):
        module.configure_model()
    module.env = RingTask()
    module.configure_model()
    policy, target = module.policy, module.target
    module.configure_model()
    assert module.policy is policy and module.target is target
    assert equal(policy.parameters(), target.parameters())


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"gradient_steps": 0}, "gradient_steps is 0: expected at least 1"),
        ({"replay_capacity": 0}, "replay_capacity is 0"),
        ({"tau": 1.5}, r"tau is 1.5: expected a number above 0 and at most 1"),
        ({"spread_decay": 0.0}, "spread_decay is 0.0"),
        ({"final_spread": 0.0}, "final_spread is 0.0: expected a positive number"),
        ({"critic_iterations": -1}, "critic_iterations is -1: expected at least 0"),
        ({"credit": "first"}, "credit is 'first': expected one of end, even"),
    ],
)
def test_numbers_out_of_range_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        DDPG(**settings)


def test_yaml_names_the_policy_and_its_parts():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(pl.LightningModule, "agent", skip={"env"})
    config = parser.parse_string("""
agent:
  class_path: gnnrl_lightning.rl.learners.DDPG
  init_args:
    credit: even
    gradient_steps: 2
    make_policy:
      class_path: gnnrl_lightning.rl.policies.DDPGAgent
      init_args:
        head: graph
        encoder:
          class_path: gnnrl_lightning.rl.encoders.GCN
          init_args:
            hidden: 24
""")
    module = parser.instantiate(config).agent
    module.env = RingTask()
    trainer(2).fit(module)
    assert type(module) is DDPG and module.credit == "even"
    assert module.policy.actor.head.encoder.out_features == 24


class Rooted(nn.Module):
    """An actor whose gradients are NaN, although its actions are not."""

    def __init__(self, actor):
        super().__init__()
        self.actor = actor

    def forward(self, state):
        actions = self.actor(state)
        return actions + (0 * actions).sqrt()


def test_gradients_that_are_not_finite_are_told_from_a_large_learning_rate():
    learner = ring()
    learner.configure_model()
    learner.policy.actor = Rooted(learner.policy.actor)
    with pytest.raises(UserError, match=r"the gradients of a finite loss have \d+ NaN or infinite values in actor"):
        trainer(3).fit(learner)
