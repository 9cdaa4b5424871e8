import pytest
import torch

from gnnrl_lightning import UserError
from gnnrl_lightning.report.graph_figure import (
    checked_suffix,
    graph_figure,
    motif_figure,
    network_figure,
    simplified_figure,
)
from gnnrl_lightning.rl.state.views import hierarchical_graph, simplified_graph
from tests.support.fakes import small_graph


def drawn(figure, gid):
    (found,) = figure.findobj(lambda artist: artist.get_gid() == gid)
    return found


def texts(figure):
    return [text.get_text() for text in figure.axes[0].texts]


@pytest.fixture(scope="module")
def levels():
    return hierarchical_graph(small_graph())


def test_every_feature_map_and_operator_is_drawn(levels):
    simplified = simplified_graph(small_graph())
    figure = graph_figure(levels, simplified, "small")
    network = levels.network
    assert len(drawn(figure, "network nodes").get_offsets()) == len(network.x)
    assert len(drawn(figure, "network edges").get_paths()) == network.edge_index.shape[1]
    assert len(drawn(figure, "simplified nodes").get_offsets()) == len(simplified.x)
    assert len(drawn(figure, "simplified edges").get_paths()) == simplified.edge_index.shape[1]
    hollow = (drawn(figure, "network nodes").get_facecolors() == torch.ones(4).numpy()).all(1)
    assert hollow.tolist() == (network.prunable == 0).tolist()
    heading = texts(figure)[0]
    assert heading.startswith("small: ") and " macs, " in heading and " params, 4 channel groups" in heading
    for text in ("frozen", "conv", "Channel groups", "g0  stem"):
        assert text in texts(figure)
    assert any(text.startswith("last  3×3 /2  → 32 @ 4×4") for text in texts(figure))  # noqa: RUF001


def test_labels_do_not_overlap(levels):
    figure = graph_figure(levels, simplified_graph(small_graph()), "small")
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts if text.get_text() not in ("", "⋮")]
    overlapping = [(a, b) for n, a in enumerate(boxes) for b in boxes[:n] if a.padded(-1).overlaps(b.padded(-1))]
    assert overlapping == []
    page = figure.bbox
    assert all(page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0 and box.y1 <= page.y1 for box in boxes)


@pytest.mark.parametrize("suffix, start", [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_files_by_suffix(levels, tmp_path, suffix, start):
    path = tmp_path / checked_suffix(f"graph.{suffix}")
    network_figure(levels, "small").savefig(path)
    assert path.read_bytes().startswith(start)


def test_parts_alone(levels):
    simplified = simplified_graph(small_graph())
    assert len(drawn(simplified_figure(simplified, levels.groups), "simplified nodes").get_offsets()) == len(
        simplified.x
    )
    convolution = next(motif for motif in levels.motifs if motif.kinds[0] == "conv")
    assert texts(motif_figure(convolution))[0].startswith("conv 3×3 + activation\n3 → 16 channels, 1 use")  # noqa: RUF001


def test_other_suffixes_are_refused():
    with pytest.raises(UserError, match=r"graph\.txt: expected a name that ends in \.png, \.svg, \.pdf"):
        checked_suffix("graph.txt")
