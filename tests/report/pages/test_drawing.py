import pytest
from matplotlib.figure import Figure

from gnnrl_lightning.report.pages.drawing import PALETTE, logarithmic

LEAST = {"ink": 7, "muted": 4.5} | dict.fromkeys(("dense", "ours", "uniform", "start", "other"), 3)
LEAST |= dict.fromkeys((f"scale{number}" for number in range(1, 6)), 2)
"""Role -> least contrast with the page: text as WCAG 2 asks, series as it asks for graphics, scales above faint."""


def luminance(colour):
    """Relative luminance, WCAG 2."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("mode", [0, 1])
@pytest.mark.parametrize("role", LEAST)
def test_colours_stand_out_from_the_page(role, mode):
    dark, light = sorted(luminance(PALETTE[name][mode]) for name in (role, "paper"))
    assert (light + 0.05) / (dark + 0.05) >= LEAST[role]


RANGES = [(0.25, 0.45), (0.9, 1.1), (0.02, 0.6), (0.03, 0.2), (0.045, 0.17), (0.11, 0.26), (1e-4, 20), (1e-7, 1e8)]


@pytest.mark.parametrize(("low", "high"), [*RANGES, (2.0, 2.0)])
def test_a_logarithmic_axis_has_some_plain_numbers(low, high):
    axes = Figure(figsize=(5, 2)).subplots()
    axes.plot([0, 1], [low, high])
    logarithmic(axes)
    axes.figure.draw_without_rendering()
    bottom, top = axes.get_ylim()
    ticks = [*axes.yaxis.get_major_ticks(), *axes.yaxis.get_minor_ticks()]
    written = [tick.label1.get_text() for tick in ticks if bottom <= tick.get_loc() <= top and tick.label1.get_text()]
    assert 2 <= len(written) <= 9
    assert len(set(written)) == len(written) and not any("$" in text for text in written)
