"""`python -m stages`: the commands in pipeline order, each with its sentence."""

import ast
from pathlib import Path

# In pipeline order. Tools that are no DVC stage follow after the last one.
STAGES = (
    "trace_imports",
    "fetch_checkpoint",
    "train_teacher",
    "sample_latents",
    "cache_features",
    "label_images",
    "cache_pixels",
    "fit_extractor",
    "fit_appearance",
    "judge_teacher",
    "preview_study",
    "evaluate_extractor",
    "compare_extractors",
    "measure_controls",
    "measure_geometry",
    "select_categories",
    "label_selected",
    "fit_fewshot",
    "sweep_fewshot",
    "measure_sampling",
    "measure_editing",
    "edit_style",
    "find_directions",
    "summarize_study",
    "make_tables",
    "make_figures",
)
TOOLS = (
    "reproduce",
    "check_params",
    "inspect_checkpoint",
    "export_samples",
    "export_dataset",
    "align_photo",
    "invert_photo",
    "measure_photos",
    "sample_conditionally",
    "edit_semantics",
    "traverse_direction",
    "studio",
    "store",
    "show_experiments",
    "update_readme",
)


def sentence(name: str) -> str:
    """The first sentence of a stage's docstring, read without importing it."""
    tree = ast.parse((Path(__file__).parent / f"{name}.py").read_text())
    return (ast.get_docstring(tree) or "").replace("\n", " ")


def main() -> None:
    """Print the table."""
    width = max(map(len, STAGES + TOOLS))
    print("Run one with `python -m stages.NAME --help`. In pipeline order:\n")
    for name in STAGES:
        print(f"  {name:<{width}}  {sentence(name)}")
    print("\nTools:\n")
    for name in TOOLS:
        print(f"  {name:<{width}}  {sentence(name)}")


if __name__ == "__main__":
    main()
