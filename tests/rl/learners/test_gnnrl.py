import copy
import logging
from functools import partial
from itertools import pairwise

import lightning.pytorch as pl
import pytest
import torch
from jsonargparse import ArgumentParser
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch import nn

from gnnrl_lightning.cost.budget import Budget
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.rl.encoders import ENCODERS, GAT, GCN
from gnnrl_lightning.rl.env import Evaluated, VectorPruningEnv
from gnnrl_lightning.rl.learners import DDPG, GNNRL
from gnnrl_lightning.rl.policies import Agent, Beta, SquashedGaussian, graph_mean
from gnnrl_lightning.rl.rollout import collect
from tests.support.fakes import TOP1, Landscape, RingTask, SaveAt, small_graph

pytestmark = [
    pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*number of training batches .* is smaller than the logging interval"),
    pytest.mark.filterwarnings("ignore:.*exists and is not empty"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks used to create"),
    # Lightning checks the type of a leaf in a way that newer PyTorch deprecates.
    pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec.:FutureWarning"),
    pytest.mark.filterwarnings("ignore:GPU available but not used"),
]
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

SMALL = partial(Agent, encoder=partial(GCN, hidden=16, layers=1))


def trainer(iterations, **settings):
    quiet = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False}
    return pl.Trainer(
        max_epochs=iterations, accelerator="cpu", devices=1, enable_progress_bar=False, **(quiet | settings)
    )


def ring(make=SMALL, **settings):
    defaults = {"episodes_per_iteration": 8, "epochs": 2, "minibatches": 2, "target_kl": None}
    return GNNRL(RingTask(), make, **(defaults | settings))


def weights(module):
    return [value.clone() for value in module.state_dict().values()]


def equal(first, second):
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_solves_a_task_far_from_pruning():
    """The best answer without messages has -1/24; neighbours' heights are needed for more."""
    module = GNNRL(RingTask(), SMALL, episodes_per_iteration=64, epochs=4, minibatches=2, seed=1)
    trainer(40).fit(module)
    task = RingTask()
    heights, _ = task.reset(500, torch.Generator().manual_seed(99))
    policy = module.policy
    reward = task.step(policy.squash(policy.mode(task.graphs(heights))))[1].mean()
    assert reward > -1 / 24 / 4


@pytest.mark.parametrize("seed", [0, 1])
def test_solves_a_landscape_with_a_known_optimum(seed):
    """Within 2 % of the optimum after 96 evaluations, where it scores 100, uniform pruning 94 and random widths 87."""
    graph = small_graph()
    limits = Budget(macs=0.5).on(graph)
    target = limits.project(torch.tensor([[15, 8, 20, 20]]))[0] / graph.widths

    def search(learning_rate):
        env = VectorPruningEnv(graph, limits, Evaluated(Landscape(graph, target), TOP1), max_steps=1)
        make = partial(Agent, distribution=Beta)
        module = GNNRL(env, make, learning_rate=learning_rate, seed=seed, episodes_per_iteration=8)
        trainer(12).fit(module)
        assert env.evaluations == 96
        evaluator = env.score.evaluator
        scores = torch.tensor([evaluator.top1(torch.tensor(widths)) for widths, _ in evaluator.calls])
        return module, env, scores

    (module, env, found), (_, _, random) = search(3e-3), search(1e-9)
    assert found.max() > 99 and found.max() > random.max()
    assert found[-16:].mean() > random[-16:].mean() + 1
    # What the policy does without exploring is as near.
    policy, observations = module.policy, env.reset(1)[0]
    assert env.step(policy.squash(policy.mode(env.graphs(observations))))[1].item() > -0.02


def test_same_seed_same_weights_other_seed_other_weights():
    first, again, other = ring(), ring(), ring(seed=1)
    for module in (first, again, other):
        trainer(2).fit(module)
    assert equal(weights(first), weights(again))
    assert not equal(weights(first), weights(other))


def with_proxy(**settings):
    """Two iterations of twelve episodes in the proxy, then one of eight in the environment and two in the proxy..."""
    defaults = {"proxy": RingTask(), "proxy_warmup": 2, "proxy_between": 2, "proxy_episodes": 12}
    return ring(**(defaults | settings))


@pytest.mark.parametrize(
    ("warmup", "between", "schedule"),
    [(2, 3, "ppRpppRpppR"), (0, 1, "RpRpR"), (3, 0, "pppRRR"), (0, 0, "RRR"), (1, 2, "pRppRppR")],
)
def test_schedule_of_two_fidelities(warmup, between, schedule):
    """p: an iteration in the proxy, R: one in the environment; the last one is real."""
    module = with_proxy(proxy_warmup=warmup, proxy_between=between)
    assert "".join("Rp"[module.in_proxy(number)] for number in range(len(schedule))) == schedule
    assert module.iterations(3) == len(schedule)
    assert module.iterations(1) == warmup + 1 and module.iterations(2) == warmup + 2 + between
    module.proxy = None
    assert module.iterations(3) == 3 and not any(map(module.in_proxy, range(20)))


def test_two_fidelities_count_real_evaluations_alone(tmp_path):
    module = with_proxy()
    step = module.proxy.step
    module.proxy.step = lambda actions: (lambda o, r, d: (o, torch.full_like(r, 5.0), d))(*step(actions))
    loop = trainer(module.iterations(2), logger=CSVLogger(tmp_path, name="run", version="0"), log_every_n_steps=1)
    loop.fit(module)
    assert loop.current_epoch == 6 and loop.global_step == 6 * 2 * 2
    assert module.evaluations == module.env.evaluations == 16 and module.proxy.evaluations == 4 * 12
    # Nor is what the proxy promises the best reward.
    assert -1 < module.reward_best < 0
    names, *lines = (tmp_path / "run/0/metrics.csv").read_text().splitlines()
    rows = [dict(zip(names.split(","), line.split(","), strict=True)) for line in lines]
    assert [float(row["search/evaluations"]) for row in rows] == [0, 0, 8, 8, 8, 16]
    assert [row["proxy/reward_mean"] != "" for row in rows] == [True, True, False, True, True, False]
    assert [row["rollout/reward_mean"] != "" for row in rows] == [False, False, True, False, False, True]
    assert [row["rollout/reward_best"] != "" for row in rows] == [False, False, True, True, True, True]
    assert all(float(row["proxy/reward_mean"]) == 5 for row in rows if row["proxy/reward_mean"])


def test_with_a_proxy_too_the_seed_decides():
    first, again, other = with_proxy(), with_proxy(), with_proxy(seed=1)
    for module in (first, again, other):
        trainer(module.iterations(2)).fit(module)
    assert equal(weights(first), weights(again))
    assert not equal(weights(first), weights(other))
    alone = ring()
    trainer(2).fit(alone)
    assert not equal(weights(first), weights(alone))


# An iteration is four steps: in the second one in the proxy, at its end, in the environment, in the proxy after it.
# With a limit the first and second end with their first steps, which are halved, and slower and faster ones follow:
# iterations of four steps end with the sixth and tenth.
@pytest.mark.parametrize(
    ("step", "target_kl"),
    [*((step, None) for step in (6, 8, 10, 14, 16)), *((step, 0.02) for step in (2, 5, 6, 8, 10, 11))],
)
def test_with_a_proxy_too_it_goes_on_bit_by_bit(tmp_path, step, target_kl):
    whole, begun, resumed = (with_proxy(target_kl=target_kl) for _ in range(3))
    trainer(6).fit(whole)
    trainer(5, callbacks=[SaveAt(step, tmp_path / "begun.ckpt")]).fit(begun)
    torch.manual_seed(17)  # nothing may depend on torch's generator
    trainer(6).fit(resumed, ckpt_path=tmp_path / "begun.ckpt", weights_only=True)
    assert equal(weights(whole), weights(resumed))
    assert resumed.evaluations == 16


@pytest.mark.parametrize("target_kl", [None, 1e-4])
def test_with_a_proxy_too_it_goes_on_from_an_iterations_end(tmp_path, target_kl):
    whole, begun, resumed = (with_proxy(target_kl=target_kl) for _ in range(3))
    trainer(6).fit(whole)
    keep = ModelCheckpoint(tmp_path, filename="end", save_on_train_epoch_end=True)
    trainer(4, enable_checkpointing=True, callbacks=[keep]).fit(begun)  # in the proxy, after a real one
    torch.manual_seed(17)  # nothing may depend on torch's generator
    trainer(6).fit(resumed, ckpt_path=tmp_path / "end.ckpt", weights_only=True)
    assert equal(weights(whole), weights(resumed))
    assert resumed.evaluations == 16


@pytest.mark.parametrize("target_kl", [None, 1e-4])
@pytest.mark.parametrize("settings", [{}, {"save_last": True, "every_n_epochs": 1}])
def test_goes_on_from_an_iterations_end_bit_by_bit(tmp_path, target_kl, settings):
    whole, begun, resumed = (ring(target_kl=target_kl) for _ in range(3))
    trainer(5).fit(whole)
    keep = ModelCheckpoint(tmp_path, filename="end", save_on_train_epoch_end=True, **settings)
    trainer(2, enable_checkpointing=True, callbacks=[keep]).fit(begun)
    torch.manual_seed(17)  # nothing may depend on torch's generator
    trainer(5).fit(resumed, ckpt_path=tmp_path / "end.ckpt", weights_only=True)
    assert equal(weights(whole), weights(resumed))
    assert resumed.evaluations == 40


# With a limit the first iteration ends with its seventh step, which is taken back, the second with the fifteenth.
@pytest.mark.parametrize("target_kl", [None, 0.05])
@pytest.mark.parametrize("step", [4, 5, 6, 8])
def test_goes_on_from_the_middle_of_an_iteration_bit_by_bit(tmp_path, step, target_kl):
    make = partial(SMALL, distribution=Beta)
    whole, begun, resumed = (ring(make, target_kl=target_kl, epochs=8) for _ in range(3))
    trainer(4).fit(whole)
    trainer(2, callbacks=[SaveAt(step, tmp_path / "middle.ckpt")]).fit(begun)
    trainer(4).fit(resumed, ckpt_path=tmp_path / "middle.ckpt", weights_only=True)
    assert equal(weights(whole), weights(resumed))


def test_an_iteration_that_goes_on_logs_its_episodes(tmp_path):
    """Callbacks may wait for their rewards, as early stopping does."""
    whole, begun, resumed = (ring() for _ in range(3))
    ended = trainer(2)
    ended.fit(whole)
    trainer(2, callbacks=[SaveAt(6, tmp_path / "middle.ckpt")]).fit(begun)
    stop = EarlyStopping("rollout/reward_mean", mode="max", check_on_train_epoch_end=True)
    again = trainer(2, callbacks=[stop])
    again.fit(resumed, ckpt_path=tmp_path / "middle.ckpt", weights_only=True)
    assert again.callback_metrics["rollout/reward_mean"] == ended.callback_metrics["rollout/reward_mean"]


def test_logs_its_metrics(tmp_path):
    module = ring()
    loop = trainer(3, logger=CSVLogger(tmp_path, name="run", version="0"), log_every_n_steps=1)
    loop.fit(module)
    lines = (tmp_path / "run/0/metrics.csv").read_text().splitlines()
    names = lines[0].split(",")
    expected = {
        *(f"losses/{name}" for name in ("policy", "value", "entropy", "approx_kl", "clipfrac")),
        "losses/explained_variance",
        "losses/grad_norm",
        "charts/learning_rate",
        "rollout/reward_mean",
        "rollout/reward_best",
        "rollout/steps",
        "search/evaluations",
        "charts/eps",
    }
    assert expected <= set(names)
    rows = [dict(zip(names, line.split(","), strict=True)) for line in lines[1:]]
    assert [float(row["search/evaluations"]) for row in rows] == [8, 16, 24]
    assert all(float(row["rollout/steps"]) == 1 for row in rows)
    best = [float(row["rollout/reward_best"]) for row in rows]
    assert all(b >= a for a, b in pairwise(best))
    assert all(float(row["rollout/reward_mean"]) <= float(row["rollout/reward_best"]) for row in rows)


def test_kl_stop_ends_iterations_early():
    free, bound = ring(epochs=10), ring(epochs=10, target_kl=1e-4)
    steps = []
    for module in (free, bound):
        loop = trainer(3)
        loop.fit(module)
        steps.append(loop.global_step)
        assert loop.current_epoch == 3 and module.evaluations == 24
    assert steps[0] == 60 and 3 <= steps[1] < 30


class Moved(Callback):
    """How far the policy is from where the iteration began, on all its transitions, when the iteration ends."""

    def on_train_epoch_start(self, trainer, module):
        self.before = copy.deepcopy(module.policy)

    def on_train_batch_start(self, trainer, module, batch, *_):
        if len(batch) == 64:
            self.batch = batch

    def on_train_epoch_end(self, trainer, module):
        state = module.environment.graphs(self.batch.observations)
        old, new = (p.evaluate(state, self.batch.actions.values)[0] for p in (self.before, module.policy))
        self.kl.append(((new - old).exp() - 1 - (new - old)).mean().item())


@pytest.mark.parametrize(("target_kl", "most"), [(None, 1.0), (0.02, 0.031)])
def test_a_step_that_goes_too_far_is_halved(target_kl, most):
    """Steps of this learning rate move the policy by more than a nat; it may move by 1.5 times the target."""
    moved = Moved()
    moved.kl = []
    module = ring(episodes_per_iteration=64, minibatches=1, epochs=4, learning_rate=0.1, target_kl=target_kl)
    trainer(4, callbacks=[moved]).fit(module)
    if target_kl is None:
        assert max(moved.kl) > most
    else:
        assert 1e-4 < min(moved.kl) and max(moved.kl) < most


class Rates(Callback):
    """Learning rates after each iteration, and the largest momentum before each first step."""

    def __init__(self, first=None):
        self.first, self.rates, self.momentum = first, [], []

    def on_train_start(self, trainer, module):
        if self.first is not None:
            trainer.optimizers[0].param_groups[0]["lr"] = self.first

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if batch_idx == 0:
            states = trainer.optimizers[0].state.values()
            self.momentum += [max((state["exp_avg"].abs().max().item() for state in states), default=0.0)]

    def on_train_epoch_end(self, trainer, module):
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])


def test_an_empty_minibatch_tells_how_far_the_policy_has_moved():
    """With fewer transitions than minibatches, the last one of an iteration is empty; it has the weight 0."""
    module, row = ring(episodes_per_iteration=2, minibatches=3), torch.zeros(1, dtype=torch.int64)
    trainer(1).fit(module)
    batch, _ = collect(RingTask(), module.policy, 2, 0, 1.0, 0.95)
    with torch.no_grad():
        module.policy.offset += 0.5
    empty, full = (module._moved(batch.rows(row, weight)) for weight in (0.0, 1.0))
    assert empty == pytest.approx(full) and full > 0.01


@pytest.mark.parametrize(
    ("target_kl", "first", "expected"),
    [
        (1e-9, None, [0.002, 0.001, 0.0005]),  # each iteration ends early: halved
        (1e9, 0.001, [0.0015, 0.00225, 0.003375]),  # none moves far
        (1e9, 0.003, [0.004, 0.004, 0.004]),  # at most the argument
        (None, None, [0.004, 0.004, 0.004]),
    ],
)
def test_the_learning_rate_follows_the_policys_moves(target_kl, first, expected):
    rates = Rates(first)
    trainer(3, callbacks=[rates]).fit(ring(learning_rate=0.004, target_kl=target_kl))
    assert rates.rates == pytest.approx(expected)


@pytest.mark.parametrize("target_kl", [1e-9, None])
def test_iterations_start_without_momentum(target_kl):
    rates = Rates()
    trainer(3, callbacks=[rates]).fit(ring(target_kl=target_kl))
    assert rates.momentum == [0, 0, 0]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_what_was_learnt_stays_learnt(seed):
    """A hundred iterations with the default steps: from the fiftieth on, better than twice as good as a constant."""

    class Watch(Callback):
        def __init__(self):
            self.rewards = []

        def on_train_epoch_end(self, trainer, module):
            task = RingTask()
            heights, _ = task.reset(500, torch.Generator().manual_seed(99))
            policy = module.policy
            self.rewards.append(task.step(policy.squash(policy.mode(task.graphs(heights))))[1].mean().item())

    watch = Watch()
    module = GNNRL(RingTask(), SMALL, episodes_per_iteration=64, initial_spread=0.12, seed=seed)
    trainer(100, callbacks=[watch]).fit(module)
    assert min(watch.rewards[50:]) > -1 / 24 / 2


def test_gradient_clipping_is_the_modules_or_the_trainers():
    class Norms(Callback):
        def on_before_zero_grad(self, trainer, module, optimizer):
            gradients = [p.grad.norm() for p in module.policy.parameters() if p.grad is not None]
            if gradients:
                self.norms.append(torch.stack(gradients).norm().item())

    for module, settings, limit in (
        (ring(max_grad_norm=1e-3), {}, 1e-3),
        (ring(max_grad_norm=1e-3), {"gradient_clip_val": 1e-2}, 1e-2),
    ):
        norms = Norms()
        norms.norms = []
        trainer(1, callbacks=[norms], **settings).fit(module)
        assert max(norms.norms) == pytest.approx(limit, rel=1e-2)


def test_env_may_come_late_but_must_come():
    module = GNNRL(make_policy=SMALL)
    with pytest.raises(UserError, match="no environment"):
        module.configure_model()
    module.env = RingTask()
    module.configure_model()
    policy = module.policy
    module.configure_model()
    assert module.policy is policy
    task = module.env
    heights, _ = task.reset(4, torch.Generator())
    assert (policy.squash(policy.mode(task.graphs(heights))) - task.initial_action).abs().max() < 0.05


@pytest.mark.parametrize("name", ["epochs", "minibatches", "episodes_per_iteration", "proxy_episodes"])
def test_counts_must_be_positive(name):
    with pytest.raises(UserError, match=f"{name} is 0"):
        GNNRL(**{name: 0})


@pytest.mark.parametrize("name", ["proxy_warmup", "proxy_between"])
def test_iterations_in_the_proxy_must_not_be_negative(name):
    with pytest.raises(UserError, match=f"{name} is -1: expected at least 0"):
        GNNRL(**{name: -1})


class Minimal(nn.Module):
    """A minimal user-defined actor-critic: only act and evaluate; actions are in [0, 1] without squashing."""

    def __init__(self, state_dim: int, action_dim: int, concentration: float = 5.0):
        super().__init__()
        self.action_dim, self.concentration = action_dim, concentration
        self.scores = nn.Parameter(torch.zeros(action_dim))
        self.value = nn.Parameter(torch.zeros(()))

    def distribution(self, state):
        mean = self.scores.sigmoid().repeat(state.num_graphs)
        return torch.distributions.Beta(self.concentration * mean, self.concentration * (1 - mean))

    def act(self, state):
        action = self.distribution(state).sample().clamp(1e-6, 1 - 1e-6)
        return action, self.distribution(state).log_prob(action).view(state.num_graphs, -1).sum(1)

    def evaluate(self, state, action):
        d = self.distribution(state)
        log_prob, entropy = (part.view(state.num_graphs, -1).sum(1) for part in (d.log_prob(action), d.entropy()))
        return log_prob, self.value.expand(state.num_graphs), entropy


def test_a_policy_that_cannot_be_had_is_refused_each_time(tmp_path):
    module = GNNRL(RingTask(), SMALL, policy_file=str(tmp_path / "none"))
    for _ in range(2):
        with pytest.raises(UserError, match="there is no file"):
            module.configure_model()


def parse(yaml):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(GNNRL, "model", skip={"env"})
    config = parser.parse_string(yaml)
    module = parser.instantiate(config).model
    module.env = RingTask()
    module.configure_model()
    return module


def test_yaml_names_the_policy_and_its_parts():
    module = parse("""
model:
  learning_rate: 0.01
  make_policy:
    class_path: gnnrl_lightning.rl.policies.Agent
    init_args:
      head: graph
      distribution: gnnrl_lightning.rl.policies.SquashedGaussian
      encoder:
        class_path: gnnrl_lightning.rl.encoders.GCN
        init_args:
          hidden: 24
""")
    policy = module.policy
    assert type(policy) is Agent and policy._distribution is SquashedGaussian
    assert policy.actor.encoder.out_features == 24 and policy.actor.action_dim == 6
    trainer(1).fit(module)


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ("GCN", GCN),
        ("GAT", GAT),
        ("mine", GAT),
        ("gnnrl_lightning.rl.encoders.GCN", GCN),
        ("{class_path: gnnrl_lightning.rl.encoders.GAT, init_args: {hidden: 24}}", GAT),
    ],
)
def test_yaml_names_an_encoder_by_its_name_or_path(given, kind, monkeypatch):
    """For the actor and the critic; a name that users register is one like the others."""
    monkeypatch.setattr(ENCODERS, "_rows", dict(ENCODERS))
    ENCODERS.register("mine", GAT)
    path = "gnnrl_lightning.rl.policies.Agent"
    module = parse(f"model: {{make_policy: {{class_path: {path}, init_args: {{head: graph, encoder: {given}}}}}}}")
    assert type(module.policy.actor.encoder) is kind and type(module.policy.critic.encoder) is kind


def test_what_is_no_encoder_is_refused():
    with pytest.raises(UserError, match=r"encoder is 'GNC' \(did you mean GCN\?\): expected one of MultiStage, GCN"):
        Agent(1, 6, encoder="GNC")
    with pytest.raises(UserError, match=r"encoder 'math\.pi': expected a class or function"):
        Agent(1, 6, encoder="math.pi")


def test_yaml_names_a_users_own_policy():
    module = parse("""
model:
  make_policy:
    class_path: tests.rl.learners.test_gnnrl.Minimal
    init_args:
      concentration: 7.0
""")
    assert type(module.policy).__name__ == "Minimal"
    assert module.policy.concentration == 7.0 and len(module.policy.scores) == 6
    trainer(2).fit(module)
    assert module.policy.scores.abs().max() > 0


def test_default_policy_is_the_agent():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(GNNRL, "model", skip={"env"})
    module = parser.instantiate(parser.parse_args([])).model
    graph = small_graph()
    module.env = VectorPruningEnv(graph, Budget(macs=0.5).on(graph), Evaluated(Landscape(graph, torch.ones(4)), TOP1))
    module.configure_model()
    assert type(module.policy) is Agent


@pytest.mark.parametrize("learner", [GNNRL, DDPG])
def test_a_policy_is_made_and_tried_where_its_states_are(learner):
    """Lightning configures a model where new tensors go to its own device."""
    graph = small_graph()
    module = learner()
    module.env = VectorPruningEnv(graph, Budget(macs=0.5).on(graph), Evaluated(Landscape(graph, torch.ones(4)), TOP1))
    with torch.device("meta"):
        module.configure_model()
    assert {parameter.device.type for parameter in module.policy.parameters()} == {"cpu"}
    assert module.env.evaluations == 0


class Turning(nn.Module):
    """A critic that turns bad at a call, in its values or in their gradients alone."""

    def __init__(self, state_dim, action_dim, call=0, gradients=False):
        super().__init__()
        self.layer, self.call, self.gradients, self.calls = nn.Linear(state_dim, 1), call, gradients, 0

    def forward(self, state):
        self.calls += 1
        value = graph_mean(self.layer(state.x), state)[:, 0]
        if self.calls <= self.call:
            return value
        return value + (0 * value).sqrt() if self.gradients else value * torch.nan


@pytest.mark.parametrize(
    ("gradients", "message"),
    [
        (False, "the policy's value is not finite, although its weights are: change what computes it, or lower"),
        (True, r"the gradients of a finite loss have 1 NaN or infinite values in critic\.layer\.\w+ .*: change"),
    ],
)
def test_a_part_of_the_users_own_that_is_not_finite_is_not_blamed_on_the_learning_rate(gradients, message):
    """Two calls try the critic, and one plays the first iteration."""
    make = partial(SMALL, critic=partial(Turning, call=3, gradients=gradients))
    with pytest.raises(UserError, match=message):
        trainer(4).fit(ring(make))


def test_a_description_of_other_things_than_strings_is_refused():
    class Described(Agent):
        @property
        def description(self):
            return {"layers": 3}

    graph = small_graph()
    module = GNNRL(make_policy=Described)
    module.env = VectorPruningEnv(graph, Budget(macs=0.5).on(graph), Evaluated(Landscape(graph, torch.ones(4)), TOP1))
    with pytest.raises(TypeError, match="expected strings by name"):
        module.configure_model()
