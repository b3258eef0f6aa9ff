"""A dataset card: what is in a dataset, in Markdown, with the figures of SA-V beside its own."""

from collections.abc import Callable

import numpy as np
import pyarrow.compute as pc

from sam2_pipeline.io.dataset import MaskletDataset
from sam2_pipeline.masklets.schema import SCHEMA_VERSION, TABLES
from sam2_pipeline.report.facts import Facts, gather

# From the paper (arXiv 2408.00714, version 1) and the released annotations.
SAV = {
    "videos": "50.9K",
    "hours of video": "196",
    "seconds a video, mean": "13.8",
    "annotated frames a second": "6",
    "masklets": "642.6K (190.9K manual, 451.7K automatic)",
    "masklets a video, mean": "12.6",
    "masks": "35.5M",
    "disappearance rate": "27.7% (manual: 42.5%)",
    "masks below a tenth of the picture": "> 88%",
}


def statistics(facts: Facts) -> dict[str, str]:
    """The figures of a dataset by their names, SA-V's among them, as text."""
    done, masklets = facts.done, facts.masklets
    mean: Callable[[str], float | None] = lambda name: pc.mean(done[name]).as_py()  # noqa: E731
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(facts.kinds.items()))
    seconds = pc.sum(done["duration_s"]).as_py() or 0.0
    frames = pc.sum(done["annotated_frame_count"]).as_py() or 0
    visible = facts.column("visible_frame_count").sum() / max(facts.column("frame_count").sum(), 1)
    size = f"{mean('width'):.0f} x {mean('height'):.0f}" if done.num_rows else "-"
    buckets = (f"{facts.share('size_bucket', name):.0%} {name}" for name in ("small", "medium", "large"))
    return {
        "videos": f"{done.num_rows:,}",
        "hours of video": f"{facts.hours:,.2f}",
        "seconds a video, mean": _number(mean("duration_s")),
        "picture size, mean": size,
        "annotated frames a second": _number(frames / seconds if seconds else None),
        "masklets": f"{masklets.num_rows:,}" + (f" ({kinds})" if kinds else ""),
        "masklets a video, mean": _number(masklets.num_rows / done.num_rows if done.num_rows else None),
        "masks": f"{facts.masks:,}",
        "seconds from a masklet's first mask to its last, mean": _number(_mean(facts.masklet_seconds)),
        "visibility changes a masklet, mean": _number(_mean(facts.column("visibility_changes"))),
        "disappearance rate": _percent(facts.disappearance_rate),
        "masks below a tenth of the picture": _percent(facts.small_masks / facts.masks if facts.masks else None),
        "sizes of masklets": ", ".join(buckets) if masklets.num_rows else "-",
        "frames on which a masklet is visible, mean": _percent(visible if masklets.num_rows else None),
        **({"verdicts": _verdicts(facts)} if facts.verdicts else {}),
    }


def dataset_card(dataset: MaskletDataset) -> str:
    """What is in a dataset, in Markdown: figures beside those of SA-V, failures, and the columns of the tables."""
    return card(gather(dataset))


def card(facts: Facts) -> str:
    """The whole card, with the front matter by which Hugging Face's `datasets` finds the tables."""
    parts = [_front_matter(), f"# Masklets of {facts.done.num_rows:,} videos\n", _origin(facts), "## Figures\n", _figures(facts)]
    if facts.failures:
        count = sum(len(kind.video_ids) for kind in facts.failures)
        rows = [f"| {len(kind.video_ids)} | {_cell(kind.error_type)} | {_cell(kind.message)} |" for kind in facts.failures]
        parts += [f"## {count} videos that failed\n", "| videos | error | message of the first |\n|---|---|---|", *rows, ""]
    return "\n".join([*parts, "## Tables\n", _TABLES, *(_columns(name) for name in TABLES)])


_TABLES = f"""Parquet, schema version {SCHEMA_VERSION}. A masklet is one object's masks over time; `rle` goes straight into
`pycocotools.mask.decode`.

```python
import sam2_pipeline as sp

dataset = sp.MaskletDataset("this folder")
dataset.masklets().to_pandas()
```
"""


_NOTE = """
Sizes, size classes and visibility changes are measured as in SA-V's annotations. The disappearance rate is the share of the
masklets that are hidden on some frame and come back.
"""


def _front_matter() -> str:
    configs = "".join(f"- config_name: {name}\n  data_files: {name}/*.parquet\n" for name in TABLES)
    return f"---\ntask_categories:\n- image-segmentation\n- mask-generation\ntags:\n- video\n- masklets\nconfigs:\n{configs}---\n"


def _origin(facts: Facts) -> str:
    models, versions = facts.values("model"), facts.values("package_version")
    if not models:
        return f"Imported with sam2_pipeline {', '.join(versions)}.\n"
    weights = ", ".join(f"`{digest[:12]}`" for digest in facts.values("weights_sha256"))
    made = f"Made by {', '.join(models)} (weights {weights}) with sam2_pipeline {', '.join(versions)}"
    return f"{made} on {', '.join(facts.values('device')) or 'an unknown device'}.\n"


def _figures(facts: Facts) -> str:
    rows = [f"| {name} | {value} | {SAV.get(name, '')} |" for name, value in statistics(facts).items()]
    return "\n".join(["| | this dataset | SA-V |", "|---|---|---|", *rows, _NOTE])


def _verdicts(facts: Facts) -> str:
    return ", ".join(f"{counts['']:,} {verdict}" for verdict, counts in facts.verdicts.items())


def _columns(name: str) -> str:
    rows = [
        f"| `{field.name}` | {field.type} | {_cell((field.metadata or {}).get(b'description', b'').decode())} |"
        for field in TABLES[name]
    ]
    return "\n".join([f"### {name}\n", "| column | type | |", "|---|---|---|", *rows, ""])


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.1f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"
