"""The studio's page in a real browser, against its server, on a toy study."""

import json
import re
from urllib.parse import urlparse

import numpy as np
import pytest
import toys
from studio_page import Server, Studio, chromium, missing, paint_line, until
from toy_study import write_study

from pipeline.data.annotation_files import open_pool
from pipeline.data.annotations import read_annotations
from pipeline.data.features import Source
from pipeline.data.mask_files import read_ids
from pipeline.data.palette import UNLABELED

pytestmark = pytest.mark.timeout(120)
SIZE = 32


@pytest.fixture(scope="module", autouse=True)
def tools():
    if reason := missing():
        pytest.skip(reason)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_study(tmp_path_factory.mktemp("studio"))


@pytest.fixture(scope="module")
def server(root):
    server = Server(root)
    yield server
    server.kill()


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture
def context(browser):
    context = browser.new_context(viewport={"width": 1280, "height": 860})
    yield context
    context.close()


@pytest.fixture
def tab(context, server):
    studio = Studio(context.new_page(), server.address)
    yield studio
    assert not studio.errors


def on_disk(root, row):
    """A row's annotation as the file has it."""
    (path,) = (root / "annotations/toy").glob(f"toy-pool-{row:05}-*.png")
    return read_ids(path, toys.CLASSES)


def blank():
    return np.full((SIZE, SIZE), UNLABELED, np.uint8)


def teach(tab):
    """Row 1 shows all classes, and an extractor is fitted to it."""
    tab.row(1)
    if (tab.ids() == UNLABELED).all():
        for label in range(4):
            tab.keyboard.press(str(label))
            tab.evaluate("studio.screens.annotate.editor.diameter = 6")
            tab.drag([(3, 4 + 8 * label), (28, 4 + 8 * label)])
    tab.saved()
    tab.wait("studio.session.state.extractor.state === 'settled'")


# Painting


def test_what_is_painted_is_on_the_disk_and_read_by_the_pipeline_at_every_zoom(tab, root):
    tab.row(0)
    expected = tab.ids()
    zooms = {1: 0, 2: -300, 3: 500}  # class: what the wheel turns before its stroke
    for label, turn in zooms.items():
        tab.mouse.move(*tab.place(15, 17))
        tab.mouse.wheel(0, turn)
        tab.wait_for_timeout(50)
        tab.keyboard.press(str(label))
        diameter = 7 - 2 * label
        tab.evaluate(f"studio.screens.annotate.editor.diameter = {diameter}")
        corners = tab.drag([(9.2 + label, 12.4), (17.7, 20.1 - label), (20.3, 11.6)])
        paint_line(expected, corners, diameter, label)
        assert (tab.ids() == expected).all()
        tab.saved()
        assert (on_disk(root, 0) == expected).all()
    source = Source(str(root / "data/checkpoints/toy.safetensors"), latents(root))
    found = read_annotations(root / "annotations/toy", open_pool(source, masks(root)))
    assert (found[0] == expected).all() and set(np.unique(expected)) == {1, 2, 3, UNLABELED}


def latents(root):
    return str(root / "data/latents/toy.zarr.zip")


def masks(root):
    return str(root / "data/masks/toy.zarr.zip")


def test_tools_change_ids_and_can_be_undone(tab, root):
    teach(tab)
    tab.row(2)
    seen, before = tab.seen(), tab.ids()
    tab.keyboard.press("l")  # what is inside a lasso is adopted from the extractor
    tab.drag([(4, 4), (20, 4), (20, 20), (4, 20)])
    tab.keyboard.press("Enter")
    square = np.zeros((SIZE, SIZE), bool)
    square[4:20, 4:20] = True
    adopted = tab.ids()
    inner = square & (np.roll(square, 1, 0) & np.roll(square, 1, 1) & np.roll(square, -1, 0))
    assert (adopted[inner] == seen[inner]).all() and (adopted[24:] == UNLABELED).all()
    tab.keyboard.press("i")  # pick
    tab.mouse.click(*tab.place(10.5, 10.5))
    assert tab.editor("label") == seen[10, 10] and tab.editor("tool") == "lasso"
    label = (seen[10, 10] + 1) % 4
    tab.keyboard.press(str(label))
    tab.keyboard.press("f")
    tab.mouse.click(*tab.place(10.5, 10.5))
    filled = tab.ids()
    changed = filled != adopted
    assert changed[10, 10] and (filled[changed] == label).all()
    tab.keyboard.press("e")
    tab.mouse.click(*tab.place(12.5, 12.5))
    assert tab.ids()[12, 12] == UNLABELED
    for _ in range(3):
        tab.keyboard.press("Control+z")
    assert (tab.ids() == before).all()
    for _ in range(2):
        tab.keyboard.press("Control+y")
    assert (tab.ids() == filled).all()
    tab.saved()
    assert (on_disk(root, 2) == filled).all()


def test_the_keyboard_alone_paints_and_fits(tab, root):
    tab.row(3)
    while tab.evaluate("document.activeElement.className") != "easel":
        tab.keyboard.press("Tab")
    tab.evaluate("studio.screens.annotate.editor.diameter = 1")
    expected = tab.ids()
    tab.keyboard.press("2")
    tab.keyboard.press("ArrowRight")  # the cursor begins at the middle
    tab.keyboard.down(" ")
    for _ in range(4):
        tab.keyboard.press("ArrowRight")
    tab.keyboard.up(" ")
    expected[16, 16:21] = 2
    assert (tab.ids() == expected).all()
    tab.keyboard.press("Shift+ArrowDown")
    tab.keyboard.press("3")
    tab.keyboard.press("Enter")
    expected[24, 20] = 3
    assert (tab.ids() == expected).all()
    assert "20, 24" in tab.text_content("#live")
    tab.saved()
    assert (on_disk(root, 3) == expected).all()
    tab.keyboard.press("Control+Enter")
    assert tab.job("fit")["state"] == "done"


def test_single_keys_can_be_switched_off(tab):
    tab.keyboard.press("?")
    tab.uncheck("#single-keys")
    tab.keyboard.press("Escape")
    tab.keyboard.press("e")
    assert tab.editor("tool") == "brush"
    tab.reload()
    tab.ready()
    tab.keyboard.press("e")
    assert tab.editor("tool") == "brush"
    tab.evaluate("localStorage.clear()")


# Fits, edits, samples


def test_unseen_samples_are_segmented_again_after_a_fit(tab):
    teach(tab)
    tab.row(4)
    version = tab.evaluate("studio.session.state.extractor.version")
    tab.keyboard.press("1")
    tab.drag([(8, 8), (20, 12)])
    tab.saved()
    tab.wait(f"studio.session.state.extractor.version > {version}")
    tab.wait(f"Number(document.getElementById('annotate').dataset.version) > {version}")
    assert "few-shot LSE of" in tab.text_content("#extractor")
    assert tab.text_content("#experiment").endswith("annotations/toy'")


def test_an_edit_shows_its_way_its_verdict_and_its_strength(tab, root):
    teach(tab)
    tab.show("edit")
    tab.evaluate("studio.screens.edit.open('seed-4')")
    tab.wait("studio.screens.edit.source === 'seed-4'")
    seen = tab.seen("edit")
    label = int(np.bincount(seen[8:24, 8:24].ravel(), minlength=4).argmin())
    tab.keyboard.press(str(label))
    tab.evaluate("studio.screens.edit.editor.diameter = 10")
    tab.drag([(10, 10), (22, 22)], "edit")
    painted = tab.ids("edit")
    tab.evaluate("studio.screens.edit.steps.value = 6")
    tab.keyboard.press("Control+Enter")
    job = tab.job("edit")
    assert job["state"] == "done" and job["result"]["steps"] == [0, 5, 6]
    folder = root / "out/studio/toy" / str(job["id"])
    assert (read_ids(folder / "edit.png", (*toys.CLASSES,)) == painted).all()
    tab.wait_for_selector(".verdict .title")
    verdict = tab.text_content(".verdict .title")
    assert "says an independent judge" in verdict and "eached" in verdict
    assert tab.text_content(".command").startswith("python -m stages.edit_semantics")
    before = tab.locator(".result").screenshot()
    tab.get_by_label("Strength").evaluate("e => (e.value = 2, e.dispatchEvent(new Event('input')))")
    until(lambda: tab.locator(".result").screenshot() != before)
    tab.click("text=Apply")
    moved = tab.job("transfer")
    assert moved["state"] == "done" and moved["request"]["strength"] == 2
    tab.wait("document.querySelectorAll('.edits button').length >= 2")
    tab.click("text=Go on from this result")
    tab.wait(f"studio.screens.edit.source === 'edit-{moved['id']}'")
    assert (tab.ids("edit") == UNLABELED).all()  # no paint survives into the next edit


def test_an_edit_can_be_cancelled_and_a_refusal_is_a_sentence(tab):
    teach(tab)
    tab.show("edit")
    tab.wait("studio.screens.edit.editor.enabled")
    tab.keyboard.press("Control+Enter")
    tab.wait_for_selector(".message.error")
    assert "Got a mask without paint; wanted at least one pixel" in tab.text_content(".message")
    tab.keyboard.press("3")
    tab.drag([(10, 10), (22, 22)], "edit")
    tab.evaluate("studio.screens.edit.steps.value = 200")
    tab.keyboard.press("Control+Enter")
    tab.wait("studio.session.unfinished.some((job) => job.progress)")
    tab.keyboard.press("Escape")
    assert tab.job("edit")["state"] == "cancelled"


def test_a_painted_mask_is_sampled(tab):
    teach(tab)
    tab.show("sample")
    tab.wait("studio.screens.sample.begun")
    tab.keyboard.press("2")
    tab.drag([(8, 8), (20, 12)], "sample")
    tab.evaluate("studio.screens.sample.steps.value = 3; studio.screens.sample.count.value = 2")
    tab.keyboard.press("Control+Enter")
    assert tab.job("sample")["state"] == "done"
    tab.wait("document.querySelectorAll('.images img').length === 4")
    tab.wait("[...document.querySelectorAll('.images img')].every((i) => i.naturalWidth)")


def test_a_photograph_is_sent_or_refused_with_a_sentence(tab, tmp_path):
    from PIL import Image

    Image.new("RGB", (64, 48), "teal").save(tmp_path / "photo.png")
    tab.show("photo")
    tab.set_input_files("input[type=file]", tmp_path / "photo.png")
    tab.wait("Boolean(studio.screens.photo.file)")
    box = tab.locator(".photo-canvas").bounding_box()
    for x, y in ((0.3, 0.3), (0.6, 0.3), (0.35, 0.7), (0.55, 0.7)):
        tab.mouse.click(box["x"] + x * box["width"], box["y"] + y * box["height"])
    assert "All four points are set" in tab.text_content("#photo .hint[role=status]")
    tab.click("text=Send with these points")
    tab.wait_for_selector(".message.error")
    assert re.match(r"Got .*; wanted .*", tab.text_content(".message"))


# Failures


def test_nothing_is_lost_when_the_server_dies(tab, server, root):
    tab.row(5)
    tab.keyboard.press("1")
    tab.drag([(5, 5), (25, 8)])
    tab.saved()
    server.kill()
    tab.keyboard.press("2")
    tab.drag([(5, 15), (25, 18)])
    tab.wait_for_selector("#trouble:not([hidden])")
    assert "kept in this tab" in tab.text_content("#trouble")
    expected = tab.ids()
    server.start()
    tab.saved()
    tab.wait_for_selector("#trouble", state="hidden")
    assert (on_disk(root, 5) == expected).all()
    tab.wait("studio.session.online")
    tab.reload()
    tab.ready()
    tab.row(5)
    assert (tab.ids() == expected).all()


def test_two_tabs_keep_the_strokes_of_both(tab, context, server, root):
    other = Studio(context.new_page(), server.address)
    for one in (tab, other):
        one.row(5)
        one.evaluate("studio.screens.annotate.editor.diameter = 3")
        one.keyboard.press("3")
    tab.drag([(4, 22), (10, 22)])
    tab.saved()
    until(lambda: (other.ids() == tab.ids()).all())  # the other tab is told
    # Both paint, and neither knows of the other.
    other.evaluate("studio.session.take = () => {}")
    tab.drag([(4, 26), (10, 26)])
    tab.saved()
    other.drag([(16, 26), (22, 26)])
    other.saved()
    merged = on_disk(root, 5)
    assert merged[26, 5] == 3 and merged[26, 20] == 3 and (other.ids() == merged).all()
    # Now on the same pixels: a person decides.
    tab.keyboard.press("1")
    tab.drag([(24, 28), (28, 28)])
    tab.saved()
    other.keyboard.press("2")
    other.drag([(24, 28), (28, 28)])
    other.wait_for_selector("#conflict[open]")
    assert "painted here and in another tab" in other.text_content("#conflict-text")
    other.click("text=Keep theirs there")
    other.saved()
    assert on_disk(root, 5)[28, 26] == 1 and (other.ids() == on_disk(root, 5)).all()
    other.close()


# For everybody


@pytest.mark.parametrize("screen", ["annotate", "edit", "sample", "photo"])
def test_axe_finds_nothing_serious(tab, screen):
    from axe_playwright_python.sync_playwright import Axe

    tab.show(screen)
    tab.wait_for_timeout(300)
    found = Axe().run(tab.page).response["violations"]
    serious = [one for one in found if one["impact"] in ("serious", "critical")]
    assert not serious, json.dumps(
        [(one["id"], [node["html"] for node in one["nodes"]][:3]) for one in serious], indent=1
    )


def test_no_request_leaves_the_machine_and_nothing_breaks_the_policy(context, server):
    page = context.new_page()
    hosts, complaints = set(), []
    page.on("request", lambda request: hosts.add(urlparse(request.url).netloc))
    page.on("console", lambda message: complaints.append(message.text))
    tab = Studio(page, server.address)
    for screen in ("edit", "sample", "photo"):
        tab.show(screen)
        tab.wait_for_timeout(200)
    assert {host for host in hosts if host} == {f"127.0.0.1:{server.port}"}
    assert not [text for text in complaints if "Content Security Policy" in text]
