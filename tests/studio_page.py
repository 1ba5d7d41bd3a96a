"""The studio's page in Chromium, and its server as a process of its own, for tests and pictures."""

import importlib.util
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
CHROMIUM = "/usr/bin/chromium"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def missing() -> str | None:
    """What there is not to test a page with; an error instead where REQUIRE_BROWSER is 1."""
    reason = None if os.path.exists(CHROMIUM) else f"no {CHROMIUM}: apt-get install chromium"
    for package in ("playwright", "axe_playwright_python"):
        if importlib.util.find_spec(package) is None:
            reason = f"no package {package}: pip install -e '.[test]'"
    if reason and os.environ.get("REQUIRE_BROWSER") == "1":
        pytest.fail(f"REQUIRE_BROWSER is 1, but {reason}")
    return reason


@contextmanager
def chromium() -> Iterator:
    """A browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


class Server:
    """`python -m stages.studio STUDY` in a folder, on the same port after each start."""

    def __init__(self, root: Path, study: str = "toy", name: str | None = None):
        self.root, self.port = root, 0
        self.words = [study] + (["--name", name] if name else [])
        self.address = ""
        self.start()

    def start(self) -> None:
        """Start and wait for the address."""
        words = [sys.executable, "-m", "stages.studio", *self.words, "--port", str(self.port)]
        places = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        self.process = subprocess.Popen(
            words, cwd=self.root, env=os.environ | places, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout
        for line in self.process.stdout:
            if found := re.search(r"http://127\.0\.0\.1:(\d+)/\?token=\S+", line):
                self.address, self.port = found[0], int(found[1])
                return
        raise AssertionError("the studio ended before it printed its address")

    def kill(self) -> None:
        """As a crash or a power cut does."""
        self.process.send_signal(signal.SIGKILL)
        self.end()

    def stop(self) -> None:
        """As Ctrl+C does."""
        self.process.send_signal(signal.SIGINT)
        self.end()

    def end(self) -> None:
        self.process.wait(20)
        assert self.process.stdout
        self.process.stdout.close()


def until(condition, seconds: float = 30, what: str = "it"):
    """Wait for a condition and return it."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"{what} did not happen"
        time.sleep(0.02)
    return found


class Studio:
    """One tab of the studio."""

    def __init__(self, page, address: str):
        self.page = page
        self.errors: list[str] = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.goto(address)
        self.ready()

    def wait(self, expression: str, seconds: float = 30):
        """Wait until an expression holds; the page's policy forbids it to evaluate texts itself."""
        return until(lambda: self.page.evaluate(expression), seconds, expression)

    def ready(self) -> None:
        """Wait until one can paint."""
        self.wait("Boolean(window.studio?.screens.annotate?.editor.enabled)")

    def __getattr__(self, name: str):
        return getattr(self.page, name)

    def editor(self, expression: str, screen: str = "annotate"):
        """A value of a screen's editor."""
        return self.page.evaluate(f"(() => studio.screens.{screen}.editor.{expression})()")

    def ids(self, screen: str = "annotate") -> np.ndarray:
        """The class ids that the page holds."""
        found = np.array(self.editor("mask.ids.join()", screen).split(","), np.uint8)
        size = round(len(found) ** 0.5)
        return found.reshape(size, size)

    def seen(self, screen: str = "annotate") -> np.ndarray:
        """What the extractor sees, as the page holds it."""
        self.wait(f"Boolean(studio.screens.{screen}.editor.seen)")
        found = np.array(self.editor("seen.join()", screen).split(","), np.uint8)
        size = round(len(found) ** 0.5)
        return found.reshape(size, size)

    def place(self, x: float, y: float, screen: str = "annotate") -> tuple[int, int]:
        """The px of the window nearest to a place in px of the mask."""
        left, top, scale = self._view(screen)
        return round(left + x * scale), round(top + y * scale)

    def _view(self, screen: str) -> tuple[float, float, float]:
        box, view = "canvas.getBoundingClientRect()", self.editor("view", screen)
        left, top = (self.editor(f"{box}.{side}", screen) for side in ("left", "top"))
        return left + view["x"], top + view["y"], view["scale"]

    def drag(self, corners: Sequence[tuple[float, float]], screen: str = "annotate"):
        """Draw with the pointer; returns where it was, in px of the mask."""
        places = [self.place(*corner, screen) for corner in corners]
        left, top, scale = self._view(screen)
        self.page.mouse.move(*places[0])
        self.page.mouse.down()
        for place in places[1:]:
            self.page.mouse.move(*place)
        self.page.mouse.up()
        return [((x - left) / scale, (y - top) / scale) for x, y in places]

    def saved(self) -> None:
        """Wait until all strokes are on the disk."""
        self.wait("!studio.screens.annotate.unsaved")

    def show(self, screen: str) -> None:
        """Go to a screen."""
        self.page.click(f"#tab-{screen}")

    def row(self, row: int) -> None:
        """Annotate a row."""
        self.page.evaluate(f"studio.screens.annotate.open({row})")
        self.wait(f"studio.screens.annotate.row === {row}")
        self.wait("studio.screens.annotate.editor.enabled")

    def job(self, kind: str) -> dict:
        """The last job of a kind, when it is done."""
        last = f"[...studio.session.jobs.values()].filter((j) => j.kind === '{kind}').at(-1)"
        over = "['done', 'failed', 'cancelled']"
        self.wait(f"{over}.includes({last}?.state)", 60)
        return self.page.evaluate(last)


def paint_line(ids: np.ndarray, corners: Sequence[tuple[float, float]], diameter: int, label: int):
    """What a brush of a diameter paints along corners (px): pixels by their centres."""
    y, x = np.mgrid[: len(ids), : len(ids)] + 0.5
    for (ax, ay), (bx, by) in zip(corners, [*corners[1:], corners[-1]], strict=True):
        dx, dy = bx - ax, by - ay
        length = dx * dx + dy * dy
        along = ((x - ax) * dx + (y - ay) * dy) / length if length else np.zeros_like(x)
        t = np.clip(along, 0, 1)
        ids[np.hypot(x - ax - t * dx, y - ay - t * dy) <= diameter / 2] = label
    for ax, ay in corners:
        ids[int(ay), int(ax)] = label
