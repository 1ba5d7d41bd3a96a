"""The topics of a report, in reading order: each a module with `all_tables` and `findings`.

A new table is one more `yield` in its topic's `all_tables`.
"""

from pipeline.reporting import directions, editing, extractors, fewshot, geometry, sampling, style

TOPICS = {
    "Extractors": extractors,
    "Few shots": fewshot,
    "What the feature maps hold": geometry,
    "Semantic-Conditional Sampling": sampling,
    "Semantic Image Editing": editing,
    "Local style editing": style,
    "Closed-form directions": directions,
}
