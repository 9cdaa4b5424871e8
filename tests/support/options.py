"""Options of a job by the names of single options, whatever their section."""

from dataclasses import fields

from gnnrl_lightning.job.options import Options


def options_of(delivery=None, finals=None, pretraining=None, finetuning=None, reads_sensitivity=True, **given):
    """Options of which some differ from the defaults.

    Those of `delivery` and `finals` come as dictionaries, because names of theirs are names of other sections;
    `sensitivity` is that of the search, and `reads_sensitivity` says whether the agent reads it. Unless told otherwise,
    every episode of the agent is an evaluation, so that these can be counted by hand, the reward is the primary figure,
    and the best candidate is delivered, however fast it is.
    """
    given = {"surrogate": False, "reward": None} | given
    defaults, sections, known = Options(), {}, set()
    for name in ("candidate", "scoring", "search", "episode"):
        kind = type(getattr(defaults, name))
        own = {field.name for field in fields(kind)} - ({"sensitivity"} if name == "episode" else set())
        sections[name] = {key: value for key, value in given.items() if key in own}
        known |= own
    assert set(given) <= known, set(given) - known
    sections["episode"]["sensitivity"] = reads_sensitivity
    made = {name: type(getattr(defaults, name))(**values) for name, values in sections.items()}
    made["delivery"] = type(defaults.delivery)(**({"fastest_of": 0} | (delivery or {})))
    made["finals"] = type(defaults.finals)(**(finals or {}))
    for name, training in (("pretraining", pretraining), ("finetuning", finetuning)):
        made[name] = training or getattr(defaults, name)
    return Options(**made)
