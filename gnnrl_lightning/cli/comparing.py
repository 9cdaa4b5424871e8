"""The configuration of `compare`: its agents, and the check that an earlier comparison may be resumed."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace

from gnnrl_lightning.checks import shown
from gnnrl_lightning.cli.parser import add_learner
from gnnrl_lightning.cli.wording import refusal
from gnnrl_lightning.cost.budget import Budget
from gnnrl_lightning.errors import UserError, chain
from gnnrl_lightning.job.checked import Checked
from gnnrl_lightning.job.compare_options import DDPG_METHOD
from gnnrl_lightning.job.comparison import AgentRow
from gnnrl_lightning.job.options import Options
from gnnrl_lightning.options import AUTO, decided_as, flat
from gnnrl_lightning.registry import resolve
from gnnrl_lightning.rl.env.options import EpisodeOptions
from gnnrl_lightning.rl.environments import AGENT
from gnnrl_lightning.rl.learners import DDPG, GraphLearner
from gnnrl_lightning.rl.learners.own import check_made
from gnnrl_lightning.runs.folder import RunFolder
from gnnrl_lightning.runs.settings import FREE, changes, read_settings

MODEL, EPISODE = SECTIONS = ("model", "episode")
"""The sections of the agent. All others configure candidates and scoring, which are the same for all methods."""

COMPARED = ("compare.methods", "compare.seeds", "compare.budgets")
"""Keys with which a comparison may go on although they differ: the names of finished runs have their values."""

SHARED = ("episodes_per_iteration", "proxy_episodes")
"""Arguments of the agent that DDPG takes, too."""

VARIANTS = ("compare", "variants")


def agents_of(sections: Mapping[str, Namespace], variants: Mapping[str, Mapping[str, Any]]) -> dict[str, AgentRow]:
    """Return the configured agent, its variants, and DDPG with the same episodes.

    Args:
        sections: The configuration, of which `SECTIONS` are read.
        variants: Name -> changes to the sections in `SECTIONS`.

    Raises:
        UserError: A variant has an unknown section or key, one that is not the agent's, or an invalid value.
    """
    parser = ArgumentParser(exit_on_error=False)
    add_learner(parser, MODEL)
    parser.add_class_arguments(EpisodeOptions, EPISODE)
    base = {name: sections[name].as_dict() for name in SECTIONS}
    rows = {name: _agent(parser, name, base, changes) for name, changes in {AGENT: {}, **variants}.items()}
    shared = {name: base[MODEL]["init_args"][name] for name in SHARED if name in base[MODEL]["init_args"]}
    return rows | {DDPG_METHOD: AgentRow(lambda seed: DDPG(**shared, seed=seed), rows[AGENT].episode)}


def prepare(agents: Mapping[str, AgentRow], checked: Checked, measured: bool) -> None:
    """Create the policy of each agent, and call its reward once.

    Args:
        agents: The agents that are compared.
        checked: The checked job.
        measured: Whether the latency is known, which the states of a trained policy may have.

    Raises:
        UserError: A policy cannot be made, or a reward fails; the message names the agent.
    """
    for name, row in agents.items():
        agent = row.make(0)
        try:
            check_made(agent)
            if measured or agent.policy_file is None:
                checked.prepare(agent, row.episode)
        except UserError as error:
            raise UserError(f"compare: {name}: {error}") from error


def _agent(parser: ArgumentParser, name: str, base: dict[str, Any], changes: Mapping[str, Any]) -> AgentRow:
    unknown = sorted(set(changes) - set(base))
    if unknown:
        raise UserError(
            f"compare.variants.{name} has {', '.join(unknown)}: expected the agent's sections, {' and '.join(base)}; "
            "all others are the same for all"
        )
    own = {part: _changes(name, changes, part) for part in base}
    merged = {MODEL: _learner(base[MODEL], own[MODEL]), EPISODE: {**base[EPISODE], **own[EPISODE]}}
    try:
        config = parser.parse_object(merged)
        episode: EpisodeOptions = parser.instantiate(config)[EPISODE]  # makes the module, too, which checks itself
    except (ArgumentError, UserError, ValueError) as error:  # jsonargparse wraps those of a learner
        cause = next((each for each in chain(error) if isinstance(each, UserError)), error)
        keys = [action.dest for action in parser._actions]
        said = str(cause) if isinstance(cause, UserError) else refusal(str(cause), keys, ())
        raise UserError(f"compare.variants.{name}: {said}") from error

    def make(seed: int) -> GraphLearner:
        agent: GraphLearner = parser.instantiate(config)[MODEL]
        agent.seed = seed
        return agent

    return AgentRow(make, episode)


def _changes(variant: str, changes: Mapping[str, Any], section: str) -> dict[str, Any]:
    """Return the changes of a variant to a section; null, of the section or of `init_args`, changes nothing."""
    found = _as_written({} if changes.get(section) is None else changes[section])
    arguments = (found.get("init_args") or {}) if isinstance(found, dict) else None
    if not isinstance(arguments, dict):
        raise UserError(
            f"compare.variants.{variant}.{section} is {shown(found)}: expected its keys with their values, see --help"
        )
    return {**found, "init_args": arguments} if "init_args" in found else found


def _learner(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a variant's learner: the configured one with other arguments, or one of the class that it names."""
    if "class_path" in changes:
        return {**changes}
    return {**base, "init_args": {**base["init_args"], **changes.get("init_args", changes)}}


def _as_written(value: Any) -> Any:
    """Return a part of the configuration without the nulls of arguments that the user does not set.

    jsonargparse fills in the arguments of anything that looks like a class, those that the caller passes (state_dim,
    action_dim) included: it sets them to null, and refuses them later.
    """
    if isinstance(value, Namespace):
        value = value.as_dict()
    if not isinstance(value, Mapping):
        return value
    given = {name: _as_written(part) for name, part in value.items()}
    if isinstance(given.get("init_args"), dict) and isinstance(given.get("class_path"), str):
        missing = _without_default(given["class_path"])
        given["init_args"] = {
            key: part for key, part in given["init_args"].items() if part is not None or key not in missing
        }
    return given


def _without_default(path: str) -> set[str]:
    """Parameters without a default. Empty if the class cannot be imported; that error is reported later."""
    try:
        parameters = inspect.signature(resolve(path, "class_path")).parameters
    except (UserError, TypeError, ValueError):
        return set()
    return {key for key, parameter in parameters.items() if parameter.default is parameter.empty}


def policies_of(model: Namespace, variants: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the files of trained policies that the agents read.

    Args:
        model: The configured learner.
        variants: As for `agents_of`.

    Raises:
        UserError: A variant has something else than keys for a learner.
    """
    learners = [model, *(_changes(name, given, MODEL) for name, given in variants.items())]
    given = [learner.get("init_args", learner).get("policy_file") for learner in learners]
    return [path for path in given if path]


def check_resumable(folder: RunFolder, config: str) -> None:
    """Refuse to resume the comparison in a folder with another configuration, given as YAML.

    Raises:
        UserError: A setting differs that affects the finished runs.
    """
    before, now = read_settings(folder), yaml.safe_load(config)
    variants = {key[:3] for key in flat(before)} & {key[:3] for key in flat(now)}  # in both
    for key, earlier, later in changes(before, now, (*FREE, *COMPARED)):
        if key[:2] != VARIANTS or key[:3] in variants:
            raise UserError(
                f"{folder.path} was compared with {'.'.join(key)} {earlier!r}, which is {later!r} now: choose another "
                "name or pass --overwrite"
            )


def as_decided(options: Options, budget: Budget, folder: RunFolder) -> tuple[Options, Budget]:
    """Replace what is "auto" by what the comparison in a folder, which is resumed, has measured."""
    earlier = read_settings(folder)
    if budget.channel_multiple == AUTO:
        budget = budget.aligned(earlier["budget"]["channel_multiple"])
    return decided_as(options, earlier), budget
