"""Tables, figures and model cards, from JSON and small arrays only."""

from pipeline.reporting.cards import model_card
from pipeline.reporting.figures import mask_figure
from pipeline.reporting.tables import class_table, extractor_table, read_metrics, write_table

__all__ = [
    "class_table",
    "extractor_table",
    "mask_figure",
    "model_card",
    "read_metrics",
    "write_table",
]
