"""Tables, figures and model cards, from JSON and small arrays only."""

from pipeline.reporting.cards import model_card
from pipeline.reporting.curves import Line, Panel, confusion_figure, line_figure
from pipeline.reporting.figures import draw_extractors, mask_figure

__all__ = [
    "Line",
    "Panel",
    "confusion_figure",
    "draw_extractors",
    "line_figure",
    "mask_figure",
    "model_card",
]
