"""The model card of a pruned network: metadata in YAML, results, and how to load each of its files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from gnnrl_lightning.objective.protocol import primary_figure
from gnnrl_lightning.report.costs import readable
from gnnrl_lightning.report.files import lossy_formats, lossy_line
from gnnrl_lightning.report.pages.words import result_rows, title, verdict

PAPER = "https://proceedings.mlr.press/v162/yu22e.html"

LOADED = "The files can be loaded in a folder that `pull` has written."

USAGE: Mapping[str, str] = {
    "weights": (
        'from gnnrl_lightning import load\n\n# dense: {dense}, with any weights\nnetwork = load("FOLDER", dense)'
    ),
    "program": (
        "# It has pickled parts: load it only if you trust its author. It needs PyTorch alone.\n"
        'network = torch.export.load("FOLDER/{file}").module()'
    ),
    "onnx": 'session = onnxruntime.InferenceSession("FOLDER/{file}", providers=["CPUExecutionProvider"])',
    "openvino": (
        'model = openvino.Core().compile_model("FOLDER/{file}", "CPU", {{"INFERENCE_PRECISION_HINT": "f32"}})'
    ),
    "int8": 'session = onnxruntime.InferenceSession("FOLDER/{file}", providers=["CPUExecutionProvider"])',
}
"""Name of a format -> Python that loads its file."""

ANY = 'from gnnrl_lightning import load\n\nnetwork = load("FOLDER", format="{name}")'
"""Python that loads the file of any other format."""


def model_card(result: Mapping[str, Any], recipe: Mapping[str, Any], repo: str) -> str:
    """Return the README.md of a repository with a pruned network.

    Args:
        result: The figures as in result.json.
        recipe: The recipe of the artifact.
        repo: The repository, user/name.
    """
    sizes = result.get("formats", {})
    parts = [
        f"# {title(result)}",
        " ".join(verdict(result)),
        "Pruned by [gnnrl_lightning](" + PAPER + ") to " + _budget(result) + ".",
        _table(*result_rows(result)),
        "Figures of the test examples, which were read once, after the search. "
        + " ".join(f"{lossy_line(result, name)}." for name in lossy_formats(result)),
        "## Files",
        f"```bash\npip install 'gnnrl-lightning[hub]'\npython -m gnnrl_lightning pull {repo} FOLDER\n```",
        f"{LOADED} `pull` compares every file with the checksums in `recipe.json`, and loads none.",
        *(part for name, note in recipe["formats"].items() for part in _format(name, note, recipe, sizes)),
        "Inputs have the shape and type, and the preprocessing, that `recipe.json` has under `input` and `transform`.",
    ]
    metadata = yaml.safe_dump(_metadata(result), sort_keys=False, allow_unicode=True)
    return f"---\n{metadata}---\n\n" + "\n\n".join(part.strip() for part in parts) + "\n"


def _metadata(result: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata that the hub reads; its `model-index` has the primary figure on the test examples."""
    primary, figure = primary_figure(result)
    value = result["pruned"][f"{primary}_test_after"]
    data = {"name": result["dataset"], "type": result["dataset"]}
    metric = {"type": primary, "name": figure.heading, "value": round(value, 4)}
    index = {"name": title(result), "results": [{"task": {"type": "other"}, "dataset": data, "metrics": [metric]}]}
    return {"library_name": "gnnrl-lightning", "tags": ["pruning", "model-compression"], "model-index": [index]}


def _budget(result: Mapping[str, Any]) -> str:
    limits = [f"{name} {value}" for name, value in result["budget"].items()]
    return f"the budget {', '.join(limits)}" if limits else "given widths"


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headings, ["---", *["---:"] * (len(headings) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _format(name: str, note: Mapping[str, Any], recipe: Mapping[str, Any], sizes: Mapping[str, Any]) -> Iterator[str]:
    files = sizes.get(name, {}).get("files", {note["file"]: None})
    listed = ", ".join(f"`{file}`" + ("" if size is None else f" ({readable(size)}B)") for file, size in files.items())
    batch = f", batch: {note['batch']}" if "batch" in note else ""
    yield f"### {name}\n\n{listed}{batch}"
    made, given = recipe["network"].get("class_path"), recipe["network"].get("init_args")
    dense = made if given is None else f"{made} with {given}"
    yield f"```python\n{USAGE.get(name, ANY).format(name=name, file=note['file'], dense=dense)}\n```"
