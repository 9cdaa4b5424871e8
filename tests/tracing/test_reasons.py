"""Reasons of frozen channels: what they cost, and what to do."""

from pathlib import Path

import torch

import gnnrl_lightning
from gnnrl_lightning.tracing.reasons import REMEDIES, remedy
from tests.support.networks_code import Code


class Scattered(Code):
    """No rule for `masked_scatter` after `a`, and a constant size after `b`."""

    def between(self, x):
        return x.masked_scatter(x > 0, x)

    def forward(self, x):
        return self.head(self.b(self.between(self.a(x))).view(-1, 6, 4).mean(2))


def test_reasons_have_what_they_cost_and_what_to_do():
    """With one channel of 8, `a` would have 16 x 27 x 7 MACs fewer; what `b` reads is not known without a rule."""
    graph = gnnrl_lightning.trace(Scattered(), torch.randn(1, 3, 6, 6))
    reasons = {reason.groups: reason for reason in graph.reasons}
    found = {groups: (reason.operator, reason.channels, reason.macs) for groups, reason in reasons.items()}
    assert found == {
        ("a",): ("masked_scatter", 8, 7 * 16 * 27),
        ("b",): ("self-test", 6, 5 * (4 * 9 * 8 + 2)),
        ("x",): ("input", 3, 2 * 16 * 9 * 8),
        ("head",): ("output", 2, 6),
    }
    assert list(reasons) == sorted(reasons, key=lambda groups: -reasons[groups].macs)
    assert reasons["a",].source.startswith("test_reasons.py:") and "view(-1, 6, 4)" in reasons["b",].reason
    assert "register a rule" in reasons["a",].remedy and not reasons["head",].remedy
    assert "frozen b: 6 channels, 1,450 MACs, self-test: the network's own code does not follow" in graph.summary()


def test_every_remedy_is_of_a_reason_that_is_given():
    package = Path(gnnrl_lightning.__file__).parent
    files = [*package.glob("tracing/**/*.py"), *package.glob("surgery/*.py")]
    code = "".join(file.read_text() for file in files if file.name != "reasons.py")
    assert [words for words in REMEDIES if words not in code] == []
    assert remedy("is an output of the network") == ""
