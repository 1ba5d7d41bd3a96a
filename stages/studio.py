"""The studio of a study in the browser: annotate samples, fit, edit, sample."""

from pathlib import Path

from stages import run


def studio(
    study: str,
    *,
    name: str | None = None,  # of the session, annotations/NAME; none: the study's
    port: int = 8600,  # on 127.0.0.1; 0: any that is free
    browser: bool = False,  # open the page in the browser
) -> None:
    """Serve the page until Ctrl+C, and print its address. Works before and after `make repro`."""
    from pipeline.runtime.errors import InputError
    from studio.place import find_place, load_words, sample_words

    try:
        from studio.server import serve
    except ModuleNotFoundError as error:
        raise InputError(
            f"no package {error.name}", "the extra `studio`", "run `pip install -e '.[studio]'`"
        ) from error
    place = find_place(study, name)
    place.claim()
    if not place.checkpoint.exists():
        _make("fetch_checkpoint", place.checkpoint, *load_words(study))
    if not (latents := place.data("latents")).exists():
        _make("sample_latents", place.checkpoint, latents, *sample_words(study))
    serve(place, port, browser)


def _make(stage: str, *words: str | Path) -> None:
    """Run a stage in a process of its own: this one imports no torch."""
    import subprocess
    import sys

    from pipeline.runtime.progress import say

    say(f"{stage} ...")
    done = subprocess.run([sys.executable, "-m", f"stages.{stage}", *map(str, words)], check=False)
    if done.returncode:
        sys.exit(done.returncode)


if __name__ == "__main__":
    run(studio)
