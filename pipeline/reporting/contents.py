"""What a report holds, in reading order: sections, each with its findings and tables.

A new table is one more `yield` in its topic's function; a new topic is one more section here.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from pipeline.reporting import (
    appearance,
    directions,
    editing,
    fewshot,
    findings,
    geometry,
    sampling,
    style,
    tables,
)

Describe = Callable[[Mapping[str, dict]], list[str]]  # a study's files -> sentences


@dataclass(frozen=True)
class Section:
    """A topic: its anchor in the page, and what it says and lists."""

    anchor: str
    title: str
    tables: Callable[[tables.Metrics], Iterable[tables.Table]]
    findings: tuple[Describe, ...] = ()


SECTIONS = (
    Section(
        "extractors",
        "Linear and nonlinear extractors",
        tables.score_tables,
        (findings.to_nse, findings.l2_at_an_end, findings.nse_training, findings.to_control),
    ),
    Section(
        "few-annotations",
        "Few annotated samples",
        fewshot.all_tables,
        (findings.to_full_lse, findings.to_random_samples),
    ),
    Section(
        "sampling",
        "Semantic-Conditional Sampling",
        sampling.all_tables,
        (findings.to_sampling,),
    ),
    Section(
        "classes",
        "Label lists and single classes",
        tables.label_tables,
        (findings.kept_classes,),
    ),
    Section(
        "maps",
        "What the feature maps hold",
        geometry.all_tables,
        (geometry.findings, findings.few_taps),
    ),
    Section(
        "linear-appearance", "Linear appearance", appearance.all_tables, (appearance.findings,)
    ),
    Section("editing", "Semantic Image Editing", editing.all_tables, (findings.to_editing,)),
    Section("local-editing", "Editing in Style", style.all_tables),
    Section(
        "closed-form", "Directions in closed form", directions.all_tables, (directions.findings,)
    ),
)
