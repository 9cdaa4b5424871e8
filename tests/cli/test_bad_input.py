"""What is refused in one line before anything is written: a table of bad values for each kind of option."""

import os
import re

import pytest

from gnnrl_lightning.cli.commands import CompressionCLI
from gnnrl_lightning.cli.ending import INVALID, ending
from gnnrl_lightning.job.checked import check
from tests.cli.refused import tree

HUGE = str(10**20)

COUNTS = (
    "search.evaluations",
    "candidate.calibration_examples",
    "delivery.calibration_examples",
    "scoring.batch_size",
    "scoring.finetune_steps",
    "episode.max_steps",
    "model.episodes_per_iteration",
    "model.epochs",
    "model.minibatches",
    "model.proxy_warmup",
    "model.proxy_between",
    "model.proxy_episodes",
    "pretraining.epochs",
    "finetuning.epochs",
    "budget.channel_multiple",
    "budget.min_width",
    "data.init_args.batch_size",
    "data.init_args.eval_batch_size",
    "run.threads",
    "trainer.max_epochs",
    "stages.epochs",
    "finals.candidates",
    "finals.steps",
    "latency.batch_size",
    "latency.threads",
)
NO_COUNT = ("-1", "1.5", "many", "nan", "inf", "[1]", HUGE)

NUMBERS = (
    "model.learning_rate",
    "model.clip_epsilon",
    "model.entropy_coeff",
    "model.value_coeff",
    "model.gamma",
    "model.gae_lambda",
    "model.target_kl",
    "model.proposal_spread",
    "model.max_grad_norm",
    "model.initial_spread",
    "pretraining.learning_rate",
    "pretraining.momentum",
    "pretraining.weight_decay",
    "finetuning.learning_rate",
    "finetuning.warmup_epochs",
    "finetuning.gradient_clip",
    "finetuning.distillation_weight",
    "finetuning.distillation_temperature",
    "scoring.drop_probability",
    "episode.max_ratio_per_step",
    "data.init_args.holdout_size",
    "data.init_args.memory_limit_gib",
    "delivery.largest_drop",
    "finetuning.mixup",
)
NO_NUMBER = ("-1", "nan", "inf", "-inf", "1e999", "much")

BUDGETS = ("0", "-0.5", "nan", "inf", "-inf", "1.0", "1.5", "150%", "half", "1e30", "0.0001", "5 apples", "")
NO_BUDGET = [("budget.macs", value) for value in BUDGETS] + [
    ("budget.limits", "{own.energy: 0.5}"),
    ("budget.limits", "{macs: .nan}"),
    ("budget.limits", "[0.5]"),
    ("budget.params", "-3"),
    ("budget.activations", "0 bytes"),
]

BAD_NAMES = ("../x", "a/b", "/tmp/x", "", ".", "..", "a\0b", "a\nb", "a\\b", "x" * 300)

MISSPELT = {
    "--budget.mac=0.5": "budget.macs",
    "--search.eval=20": None,
    "--search.evaluatons=20": "search.evaluations",
    "--serch.evaluations=20": "search.evaluations",
    "--candidate.repairs=refit": "candidate.repair",
    "--finetunning.epochs=3": "finetuning.epochs",
    "--episode.maxsteps=3": "episode.max_steps",
    "--model.learning_rat=0.1": "learning_rate",
    "--model=DDGP": "DDPG",
    "--model.learn=0.1": None,
    "--run.nam=x": "run.name",
    "--trainer.device=1": "trainer.devices",
    "--overwrit": "overwrite",
    "--checkpiont=a.pt": "checkpoint",
    "--data.init_args.batchsize=3": "batch_size",
    "--data.init_args.holdout_siz=3": "holdout_size",
    "--data=Digitz": "Digits",
    "--network.class_path=resent20": "resnet20",
    "--objective=clasification": "classification",
    "--candidate.importance=tailor": "taylor",
    "--candidate.repair=refitt": "refit",
    "--search.sensitivity=output": "outputs",
    "--delivery.formats=[weigths]": "weights",
    "--episode.reward=divergense": None,
    "--trainer.logger=WandBLogger": "WandbLogger",
    "--model.make_policy=Agnt": "Agent",
}

WORDED = {
    "--latency.precision=fp16": r"^error: latency.precision is fp16: expected one of 32, bf16$",
    "--search.evaluations": r"^error: --search.evaluations has no value: expected one argument after it$",
    "--config": r"^error: --config has no value",
    "--budgets": r"^error: --budgets has no value: expected at least one argument after it$",
    "--print_config=nothing": r"^error: --print_config is nothing: expected nothing or skip_default$",
    "--model.make_policy.help=Agnt": r"^error: model.make_policy: there is no class Agnt \(did you mean Agent\?\): exp",
    "--data=torch.nn.Linear": (
        r"^error: data: .* is of another kind: expected a subclass of LightningDataModule, such as ImageData .*set.md$"
    ),
    "--data.help=nothing": r"^error: data: there is no class nothing: expected its name or import path",
    "--budget=0.5": r"arguments: --budget=0.5: expected one of its keys, such as --budget.macs; see --help$",
    "--network=resnet20": r"expected one of its keys, such as --network.class_path; see --help$",
    "--trainer.logger={class_path: WandbLogger, init_args: {offline: perhaps}}": (
        r"^error: trainer.logger: offline is perhaps: expected bool$"
    ),
    "--model.proxy_warmup=2.5": r"^error: model.proxy_warmup is 2.5: expected int$",
    "--model={class_path: DDPG, init_args: {tua: 0.1}}": r"^error: model: \S+DDPG has no argument tua \(did you mean ",
    "--model={class_path: DDPG, tau: 0.1}": r"^error: model: expected class_path and init_args, with the arguments of ",
    "--model.make_policy={class_path: Agent, init_args: {heads: node}}": (
        r"^error: model.make_policy: \S+Agent has no argument heads \(did you mean head\?\): see its documentation$"
    ),
    "--model.make_policy={class_path: Agent, init_args: {fixed_spread: 3}}": (
        r"^error: model.make_policy: fixed_spread is 3: expected bool$"
    ),
    "--trainer.accelerator=tpu": r"^error: trainer with accelerator tpu, devices 1, num_nodes 1 is refused \(.*\): ch",
}

FOR_TRAINER = (
    ("devices", "-5"),
    ("devices", "0"),
    ("devices", "[0, 0]"),
    ("devices", "zero"),
    ("devices", HUGE),
    ("accelerator", "abacus"),
    ("precision", "17"),
    ("precision", "16-true"),
    ("precision", "64"),
    ("precision", "transformer-engine"),
    ("devices", "1,2"),
    ("strategy", "chess"),
    ("num_nodes", "-1"),
    ("max_epochs", "0"),
    ("gradient_clip_val", "nan"),
    ("logger", "nowhere.Logger"),
    ("callbacks", "nothing"),
    ("callbacks", "[{class_path: nowhere.Callback}]"),
    ("profiler", "stopwatch"),
)

# Modules of the user's, given wherever an import path is expected.
MODULES = {
    "leaves": "import sys\nsys.exit(0)\n",
    "raises": "raise RuntimeError('not today\\nnor tomorrow')\n",
    "broken": "def :\n",
    "lacks": "",
    "circular": "import circular_too\n",
}
IMPORTED = (
    "network.class_path",
    "data.class_path",
    "objective",
    "candidate.importance",
    "candidate.repair",
    "search.sensitivity",
    "episode.reward",
    "model.make_policy",
    "trainer.callbacks.class_path",
)

VALUES = (
    ("seed_everything", "-1"),
    ("seed_everything", HUGE),
    ("seed_everything", "nan"),
    ("budgets", "nan"),
    ("compare.budgets", "[.inf]"),
    ("compare.seeds", f"[{HUGE}]"),
    ("episode.penalty", "nan"),
    ("episode.macs_range", "[.nan, 0.5]"),
    ("episode.macs_range", "[0.5]"),
    ("episode.proposal", "dynamic"),
    ("scoring.precision", "8"),
    ("scoring.racing", "perhaps"),
    ("groups.keep", "[conv9]"),
    ("groups.keep", "conv1"),
    ("groups.limits", "{conv1: {min: .nan}}"),
    ("groups.limits", "{conv1: {least: 3}}"),
    ("groups.limits", "{conv1: 3}"),
    ("network.init_args", "3"),
    ("network.init_args.width", "-3"),
    ("checkpoint", "."),
    ("checkpoint", "/dev/null"),
    ("checkpoint", "pipe.safetensors"),
    ("checkpoint", "a\0b"),
    ("artifact", "small.yaml"),
    ("artifact", "/dev/zero"),
    ("model.policy_file", "nowhere.safetensors"),
    ("model.policy_file", "."),
    ("model.policy_file", "small.yaml"),
    ("run.root", "small.yaml"),
    ("run.root", "a\0b"),
    ("resume", "nowhere"),
    *(
        ("stages.shares", given)
        for given in ("[1.0]", "[0]", "[-0.5]", "[.nan]", "[.inf]", "0.7", "[a]", "[[0.7]]", "[0.7, 0.7]", "[0.6, 0.8]")
    ),
    *(("stages.shares", given) for given in ("[null]", "{a: 1}", "[1e30]", "[150%]", "[5 ms]", "[0.4]", "[true]")),
    ("stages", "3"),
    *(
        ("delivery.formats", given)
        for given in (
            "[]",
            "[weights, weights]",
            "[os.mkdir]",
            "weights",
            "[3]",
            "[null]",
            "['']",
            "{a: 1}",
            "[int8, int8]",
        )
    ),
    ("latency.precision", "8"),
    ("latency.backend", "os.nothing"),
    ("latency.backend", "os.sep"),
    ("latency.threads", "5000"),
    ("budget.latency", "3"),
    ("budget.latency", "-1 ms"),
    ("budget.latency", "nan ms"),
    ("budget.latency", "5 s"),
)

CONFIGS = {
    "latin.yaml": b'run: {name: "\xe9"}\n',
    "binary.yaml": bytes(range(256)),
    "list.yaml": b"- a\n- b\n",
    "text.yaml": b"only text",
    "open.yaml": b"run: {name: x\n",
    "tabs.yaml": b"run:\n\tname: x\n",
    "object.yaml": b"run: !!python/object/apply:os.system [echo]\n",
    "anchor.yaml": b"run: *nothing\n",
    "section.yaml": b"serch: {evaluations: 3}\n",
    "nested.yaml": b"search: {evaluations: {evaluations: 3}}\n",
    "number.yaml": b"search: 3\n",
    "abbreviated.yaml": b"budget: {mac: 0.5}\n",
}

CASES = [
    *((f"--{name}={value}", None) for name in COUNTS for value in NO_COUNT),
    *((f"--{name}={value}", None) for name in NUMBERS for value in NO_NUMBER),
    *((f"--{name}={value}", None) for name, value in NO_BUDGET),
    *((f"--{name}={value}", None) for name in ("run.name", "run.experiment") for value in BAD_NAMES),
    *((given, meant and rf"\(did you mean (--)?{re.escape(meant)}\?\)") for given, meant in MISSPELT.items()),
    *WORDED.items(),
    *((f"--trainer.{name}={value}", None) for name, value in FOR_TRAINER),
    *((f"--{name}={value}", None) for name, value in VALUES),
    *((f"--config={name}", None) for name in (*CONFIGS, "nowhere.yaml", "nowhere", ".", "/dev/null", "pipe.yaml")),
]


def _option(name, module):
    if name.startswith("trainer.callbacks"):
        return f"--trainer.callbacks=[{{class_path: {module}.Thing}}]"
    return f"--{name}={module}.Thing"


CASES += [(_option(name, module), None) for name in IMPORTED for module in MODULES]


class Reused(CompressionCLI):
    """The command line of `fit`, whose parser is made once; nothing is run."""

    def _run_subcommand(self, subcommand):
        pass

    def prepare(self, *arguments):
        """Everything that `fit` does before it opens the folder of a run."""
        self.resumed = None
        self.parse_arguments(self.parser, ["fit", "--config", "small.yaml", "--run.root", "bad", *arguments])
        self.instantiate_classes()
        checked = check(self.task, self._budget(), self.options)
        checked.job.iterations(self.model)
        checked.prepare(self.model)


@pytest.fixture(scope="module")
def cli(workplace):
    os.mkfifo(workplace / "pipe.safetensors")
    os.mkfifo(workplace / "pipe.yaml")
    for name, contents in CONFIGS.items():
        (workplace / name).write_bytes(contents)
    for name, text in MODULES.items():
        (workplace / f"{name}.py").write_text(text)
    (workplace / "circular_too.py").write_text("from circular import Thing\n")
    return Reused(["fit", "--config", "small.yaml"])


def test_there_are_many():
    assert len(CASES) >= 300 and len({given for given, _ in CASES}) == len(CASES)


def test_what_is_good_is_accepted(cli):
    cli.prepare()
    cli.prepare("--search.evaluations=60", "--model.learning_rate=0.01", "--budget.macs=50%", "--run.name=fine")


@pytest.mark.parametrize(("given", "message"), CASES, ids=[given[:60] for given, _ in CASES])
def test_bad_input_is_refused_in_one_line(cli, workplace, given, message):
    before = tree(workplace)
    with pytest.raises(Exception) as error:
        cli.prepare(given)
    end = ending(error.value)
    assert end is not None and end.code == INVALID, repr(error.value)
    said = end.line
    assert said.isprintable() and "Traceback" not in said and len(said) > 30
    assert message is None or re.search(message, said), said
    assert tree(workplace) == before
