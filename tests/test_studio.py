"""The studio's session and its HTTP interface, on a toy study, with the real two processes."""

import base64
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import toys
from starlette.testclient import TestClient
from toy_study import write_study

from pipeline.analysis.fewshot.options import Draws
from pipeline.analysis.fewshot.sweeps import fit_fewshot
from pipeline.data.annotation_files import open_pool
from pipeline.data.annotations import read_annotations
from pipeline.data.arrays import Group
from pipeline.data.features import Source, open_source
from pipeline.data.inputs import Study
from pipeline.data.mask_files import read_mask
from pipeline.data.palette import UNLABELED
from pipeline.extractors.networks import load_extractor
from pipeline.runtime.errors import InputError
from studio.drawings import NOTHING, revision
from studio.events import Events
from studio.journal import Journal
from studio.place import find_place
from studio.refusals import Conflict, Missing
from studio.server import Server
from studio.session import Session

ROOT = Path(__file__).parents[1]
SIZE, TOKEN, HOST = 32, "secret", "127.0.0.1:8600"
OURS = {"X-Studio": "1", "Cookie": f"studio-8600={TOKEN}"}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_study(tmp_path_factory.mktemp("studio"))


@pytest.fixture(scope="module")
def session(root):
    with Session(find_place("toy", root=root)) as session:
        yield session


@pytest.fixture(scope="module")
def client(session):
    app = Server(session).app(HOST, TOKEN)
    return TestClient(app, f"http://{HOST}", raise_server_exceptions=False, headers=OURS)


def drawn(seed, classes=4):
    """A mask with a labelled square."""
    mask = np.full((SIZE, SIZE), UNLABELED, np.uint8)
    mask[4:24, 6:28] = np.random.default_rng(seed).integers(0, classes, (20, 22))
    return mask


def until(condition, seconds=60):
    """Wait for a condition and return it."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)
    return found


def draw(session, row, mask):
    """Draw over whatever is there."""
    return session.draw(row, mask, session.annotation(row)[1])


def finished(session, job):
    """A job's state when it is over."""
    until(lambda: job.over)
    assert job.state == "done", job.error
    return job.result


# Annotations and fits


def test_what_is_drawn_is_what_the_pipeline_reads(session, root):
    masks = {row: drawn(row) for row in (1, 4)}
    for row, mask in masks.items():
        told = draw(session, row, mask)
        assert told == {"row": row, "revision": revision(mask), "labelled": 440}
    folder = root / "annotations" / "toy"
    assert all(path.suffix == ".png" for path in folder.iterdir())
    source = Source(str(session.place.checkpoint), str(session.place.data("latents")))
    found = read_annotations(folder, open_pool(source, session.place.data("masks")))
    assert found.keys() >= masks.keys()
    assert all((found[row] == mask).all() for row, mask in masks.items())


def test_a_settled_fit_is_the_command_lines(session, root):
    draw(session, 1, drawn(1))
    result = finished(session, session.fit())
    place = session.place
    source = open_source(place.checkpoint, place.data("latents"), "auto", place.compute)
    study = Study(source, str(place.data("masks")))
    annotations = read_annotations(place.annotations, open_pool(source, study.masks))
    study = replace(study, annotations=annotations)
    draws = Draws(shots=1, repeats=1, seed=0)
    ((fitted,), _) = fit_fewshot(study, draws, place.rule, 1)
    ours = load_extractor(place.fewshot)
    for a, b in zip(ours.weights, fitted.extractor.weights, strict=True):
        assert (a - b).abs().max() <= 1e-6 * b.abs().max()
    assert result["samples"] == len(annotations) and result["pixels"] == fitted.labeled_pixels
    assert session.state()["extractor"]["state"] == "settled"


def test_a_stroke_gives_a_live_fit_that_is_never_saved(session):
    draw(session, 2, drawn(2))
    finished(session, session.fit())
    saved, version = session.place.fewshot.read_bytes(), session.current.version
    draw(session, 2, drawn(3))
    until(lambda: session.current.version > version)
    assert session.current.state == "live" and session.place.fewshot.read_bytes() == saved
    job = until(lambda: next((j for j in session.jobs.unfinished() if j.automatic), None))
    finished(session, job)  # by itself, when nothing more comes
    assert session.current.state == "settled" and session.place.fewshot.read_bytes() != saved


def test_a_live_fit_comes_near_to_the_settled_one(session):
    """On a mask that a linear map gives: that of an LSE fitted to anything."""
    draw(session, 1, drawn(1))
    finished(session, session.fit())
    mask = np.frombuffer(session.look("pool-3", "mask")[0].result(), np.uint8)
    mask = mask.reshape(SIZE, SIZE).copy()
    for row in list(session.drawings.masks):
        session.erase(row, session.annotation(row)[1])
    until(lambda: session.current.state == "full")
    draw(session, 3, mask)
    until(lambda: session.current.state == "live")
    live = np.frombuffer(session.look("pool-3", "mask")[0].result(), np.uint8)
    finished(session, session.fit())
    settled = np.frombuffer(session.look("pool-3", "mask")[0].result(), np.uint8)
    right = [(one == mask.ravel()).mean() for one in (live, settled)]
    assert right[1] > 0.75 and abs(right[0] - right[1]) < 0.1 and (live == settled).mean() > 0.8


def test_an_erased_mask_leaves_no_file(session):
    mask = drawn(5)
    draw(session, 5, mask)
    path = session.drawings.path(5)
    assert path.exists()
    session.erase(5, revision(mask))
    assert not path.exists() and session.annotation(5)[1] == NOTHING


def test_another_tab_cannot_overwrite(session):
    draw(session, 0, drawn(7))
    with pytest.raises(Conflict, match="another tab has changed it") as refused:
        session.draw(0, drawn(8), NOTHING)
    assert refused.value.revision == revision(drawn(7))
    assert (session.annotation(0)[0] == drawn(7)).all()


def test_the_rows_to_annotate_next_are_open_ones(session):
    finished(session, session.fit())
    rows = {row for row in range(6) if row not in session.drawings.masks}
    until(lambda: set(session.current.suggested) == rows)


def test_a_second_studio_of_the_session_is_refused(session):
    with pytest.raises(InputError, match="open already"):
        Session(session.place)


def test_masks_from_elsewhere_are_refused(root, session, tmp_path):
    from studio.drawings import Drawings

    place = replace(session.place, root=tmp_path)
    place.annotations.mkdir(parents=True)
    draw(session, 1, drawn(1))
    name = session.drawings.path(1).name
    (place.annotations / f"copy-{name}").write_bytes(session.drawings.path(1).read_bytes())
    with pytest.raises(InputError, match="drawn elsewhere"):
        Drawings(place, session.pool)


# Edits, samples, transfers


@pytest.fixture(scope="module")
def taught(session):
    """A session with a row that shows all classes."""
    draw(session, 1, drawn(1))
    finished(session, session.fit())
    return session


def painted(session, name, label):
    """A square of a class over the middle of a sample, where the guide sees another one."""
    own = np.frombuffer(session.look(name, "mask")[0].result(), np.uint8).reshape(SIZE, SIZE)
    mask = np.full((SIZE, SIZE), UNLABELED, np.uint8)
    mask[8:24, 8:24] = label
    assert (own[8:24, 8:24] != label).any()
    return mask


def other_label(session, name):
    own = np.frombuffer(session.look(name, "mask")[0].result(), np.uint8).reshape(SIZE, SIZE)
    return int(np.bincount(own[8:24, 8:24].ravel(), minlength=4).argmin())


def test_an_edit_is_told_step_by_step_and_written_as_the_tool_does(taught, root):
    mask = painted(taught, "pool-2", other_label(taught, "pool-2"))
    after = taught.events.last
    job = taught.edit("pool-2", mask, steps=12)
    result = finished(taught, job)
    number = int(after.rpartition("-")[2])
    told = [
        e.data["progress"] for e in taught.events.kept if e.number > number and e.name == "progress"
    ]
    steps = [one for one in told if one]
    assert {one["step"] for one in steps} == set(range(13)) and steps[-1]["of"] == 12
    assert steps[-1]["loss"] < steps[0]["loss"] and steps[-1]["frame"] == 12
    assert result["steps"] == [0, 5, 10, 12] and result["judged_by"] == "judge"
    assert result["guide"].startswith("few-shot LSE of")
    folder = root / "out" / "studio" / "toy" / str(job.id)
    tools = {"before.png", "after.png", "mask_before.png", "mask_target.png", "mask_after.png"}
    assert tools | {"vector.safetensors", "scores.json", "edit.png"} <= set(result["files"])
    target = read_mask(folder / "mask_target.png", toys.CLASSES)
    own = read_mask(folder / "mask_before.png", toys.CLASSES)
    assert (target == np.where(mask == UNLABELED, own, mask)).all()
    assert result["region_pixels"] == (target != own).sum()
    # The guide is the few-shot LSE that was fitted here.
    weights = zip(
        load_extractor(folder / "guide.safetensors").weights,
        load_extractor(taught.place.fewshot).weights,
        strict=True,
    )
    assert all((a == b).all() for a, b in weights)


def test_an_edit_is_a_sample_whose_strength_can_be_changed(taught):
    mask = painted(taught, "seed-4", other_label(taught, "seed-4"))
    job = taught.edit("seed-4", mask, steps=12)
    result = finished(taught, job)
    look = {s: taught.look("seed-4", "image", job.id, s)[0].result() for s in (0.0, 1.0)}
    assert look[0.0] == taught.look("seed-4", "image")[0].result()
    assert look[1.0] == taught.look(result["sample"], "image")[0].result() != look[0.0]
    moved = finished(taught, taught.transfer(job.id, "pool-5", 0.5))
    shown = taught.look("pool-5", "image", job.id, 0.5)[0].result()
    assert taught.look(moved["sample"], "image")[0].result() == shown
    assert "success" not in moved and moved["strength"] == 0.5
    again = finished(taught, taught.edit(moved["sample"], mask, steps=1))
    assert again["source"] == moved["sample"]


def test_a_painted_mask_is_sampled(taught, root):
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[:, 16:] = 1
    job = taught.sample(mask, count=2, steps=3)
    result = finished(taught, job)
    assert len(result["agreements"]) == 2
    assert {"0.png", "0_mask.png", "1.png", "1_mask.png"} <= set(result["files"])
    with np.load(root / "out/studio/toy" / str(job.id) / "latents.npz") as latents:
        assert latents["z_last"].shape[0] == 2


def test_a_cancelled_edit_ends_within_a_step(taught):
    mask = painted(taught, "seed-4", other_label(taught, "seed-4"))
    job, waiting = (taught.edit("seed-4", mask, steps=200) for _ in range(2))
    until(lambda: job.progress)
    taught.cancel(waiting.id)
    taught.cancel(job.id)
    until(lambda: job.over and waiting.over)
    assert (job.state, waiting.state) == ("cancelled", "cancelled")
    assert job.progress["step"] < 200
    with pytest.raises(Conflict, match="which is cancelled"):
        taught.cancel(job.id)
    with pytest.raises(Missing, match="edit"):
        taught.look(f"edit-{job.id}", "image")


def test_a_class_that_was_hardly_labelled_is_refused(taught):
    rows = list(taught.drawings.masks)
    for row in rows:
        taught.erase(row, taught.annotation(row)[1])
    with pytest.raises(InputError, match=r"no extractor.*annotate a sample first"):
        taught.guide()
    draw(taught, 1, drawn(1, classes=2))
    with pytest.raises(InputError, match=r"class hair with 0 labelled pixels.*annotate it first"):
        taught.edit("pool-2", np.full((SIZE, SIZE), 3, np.uint8))
    with pytest.raises(InputError, match="a mask without paint"):
        taught.edit("pool-2", np.full((SIZE, SIZE), UNLABELED, np.uint8))
    with pytest.raises(InputError, match="class id 255; wanted ids below 4"):
        taught.sample(np.full((SIZE, SIZE), UNLABELED, np.uint8))


# Events and the journal


def test_events_are_told_from_where_a_reader_left(anyio_backend="asyncio"):
    import asyncio

    async def read(events, after, count):
        found = []
        async for event in events.follow(after, 0.2):
            found.append(event and (event.name, event.data))
            if len(found) == count:
                return found

    events = Events()
    for step in range(3):
        events.add("progress", {"id": 1, "step": step})
    events.add("done", {"id": 2})
    first = events.id(0)
    only_the_last = [("progress", {"id": 1, "step": 2}), ("done", {"id": 2}), None]
    assert asyncio.run(read(events, first, 3)) == only_the_last
    assert asyncio.run(read(events, events.last, 1)) == [None]
    assert asyncio.run(read(events, None, 1)) == [None]
    assert asyncio.run(read(events, "another-3", 2)) == [("reset", {}), None]
    for number in range(1200):
        events.add("done", {"id": number})
    assert asyncio.run(read(events, first, 1)) == [("reset", {})]


def test_a_line_that_was_cut_short_is_left_out(tmp_path):
    path = tmp_path / "jobs.jsonl"
    journal = Journal(path)
    job = journal.new("fit", {})
    journal.write(job)
    job.state = "done"
    journal.write(job)
    journal.write(journal.new("export", {"samples": 2}))
    whole = path.read_bytes()
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        again = Journal(path)
        again.write(again.new("fit", {}))
        states = [json.loads(line)["state"] for line in path.read_text().splitlines()]
        assert set(states) <= {"queued", "done"}
    path.write_bytes(whole)
    assert [(j.id, j.state) for j in Journal(path).jobs.values()] == [(1, "done"), (2, "queued")]


# HTTP


def test_the_token_opens_the_page_once_and_for_all(session):
    app = Server(session).app(HOST, TOKEN)
    client = TestClient(app, f"http://{HOST}", follow_redirects=False)
    assert client.get("/").status_code == 401
    answer = client.get("/", params={"token": TOKEN})
    assert answer.status_code == 303 and answer.headers["location"] == "/"
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie
    answer = client.get("/api/session")
    assert answer.status_code == 200
    assert "default-src 'self'" in answer.headers["content-security-policy"]


def test_a_page_gets_all_that_it_begins_with(client, session):
    state = client.get("/api/session").json()
    assert state["classes"][1]["name"] == "skin" and len(state["pool"]) == 6
    assert (state["psi"], state["size"], state["resolution"]) == (0.7, SIZE, 32)
    assert state["experiment"].endswith("studies.toy.annotations=annotations/toy'")


def test_annotations_go_over_http_by_revision(client):
    tag = client.get("/api/annotations/3").headers["etag"]
    mask = drawn(11)
    assert client.put("/api/annotations/3", content=mask.tobytes()).status_code == 428
    put = client.put("/api/annotations/3", content=mask.tobytes(), headers={"If-Match": tag})
    assert put.status_code == 200 and put.json()["revision"] == revision(mask)
    late = client.put("/api/annotations/3", content=mask.tobytes(), headers={"If-Match": tag})
    assert late.status_code == 409 and late.json()["revision"] == revision(mask)
    got = client.get("/api/annotations/3")
    assert got.content == mask.tobytes() and got.headers["etag"] == f'"{revision(mask)}"'
    gone = client.delete("/api/annotations/3", headers={"If-Match": got.headers["etag"]})
    assert gone.json() == {"row": 3, "revision": NOTHING, "labelled": 0}


def test_pictures_are_kept_by_their_tag(client):
    for look in ("image.jpg", "preview.jpg", "mask"):
        first = client.get(f"/api/samples/seed-9/{look}")
        assert first.status_code == 200
        again = {"If-None-Match": first.headers["etag"]}
        assert client.get(f"/api/samples/seed-9/{look}", headers=again).status_code == 304
    assert len(client.get("/api/samples/pool-1/mask").content) == SIZE * SIZE


def test_a_job_goes_over_http(client, session, root):
    number = client.post("/api/jobs", json={"kind": "export", "samples": 2}).json()["id"]
    job = until(lambda: (j := client.get(f"/api/jobs/{number}").json())["result"] and j)
    assert job["state"] == "done" and "export_samples" in job["command"]
    folder = root / "out" / "studio" / "toy" / str(number)
    assert len(list((folder / "images").glob("toy-pool-*.png"))) == 2
    palette = client.get(f"/api/edits/{number}/palette.gpl")
    assert palette.status_code == 200 and palette.content.startswith(b"GIMP Palette")


def mask64(value=0):
    return base64.b64encode(bytes([value]) * SIZE * SIZE).decode()


HOSTILE = {  # what: (method, path, headers, body, status)
    "another host": ("GET", "/api/session", {"Host": "evil.example"}, None, 403),
    "another port": ("GET", "/api/session", {"Host": "127.0.0.1:8601"}, None, 403),
    "another origin": ("PUT", "/api/annotations/1", {"Origin": "http://evil"}, b"", 403),
    "no origin of a sandbox": ("POST", "/api/jobs", {"Origin": "null"}, b"{}", 403),
    "cross-site": ("GET", "/api/session", {"Sec-Fetch-Site": "cross-site"}, None, 403),
    "no token": ("GET", "/api/session", {"Cookie": ""}, None, 401),
    "another token": ("GET", "/api/session", {"Cookie": "studio-8600=x"}, None, 401),
    "token by query elsewhere": ("GET", f"/api/session?token={TOKEN}", {"Cookie": ""}, None, 401),
    "no custom header": ("POST", "/api/jobs", {"X-Studio": ""}, b"{}", 403),
    "CORS preflight": ("OPTIONS", "/api/jobs", {"Origin": f"http://{HOST}"}, None, 405),
    "traversal": ("GET", "/static/..%2fserver.py", {}, None, 404),
    "traversal of results": ("GET", "/api/edits/1/..%2f..%2fjobs.jsonl", {}, None, 404),
    "hidden file": ("GET", "/static/.gitignore", {}, None, 404),
    "too long a body": ("PUT", "/api/annotations/1", {}, b"x" * (SIZE * SIZE + 1), 413),
    "too short a mask": ("PUT", "/api/annotations/1", {"If-Match": "x"}, b"x", 422),
    "a class that is none": ("PUT", "/api/annotations/1", {"If-Match": "x"}, b"c" * 1024, 422),
    "a row that is none": ("PUT", "/api/annotations/99", {"If-Match": "x"}, b"\0" * 1024, 404),
    "no JSON": ("POST", "/api/jobs", {}, b"{", 422),
    "deep JSON": ("POST", "/api/jobs", {}, b"[" * 3000, 422),
    "a list": ("POST", "/api/jobs", {}, b"[]", 422),
    "an unknown kind": ("POST", "/api/jobs", {}, b'{"kind": "close"}', 422),
    "a field too many": ("POST", "/api/jobs", {}, b'{"kind": "fit", "path": "/etc"}', 422),
    "too many samples": ("POST", "/api/jobs", {}, b'{"kind": "export", "samples": 1e9}', 422),
    "no number": ("POST", "/api/jobs", {}, b'{"kind": "export", "samples": NaN}', 422),
    "a seed too large": ("GET", "/api/samples/seed-99999999999/mask", {}, None, 404),
    "a sample's path": ("GET", "/api/samples/..%2f..%2fetc/mask", {}, None, 404),
    "a strength too large": ("GET", "/api/samples/seed-1/mask?strength=inf", {}, None, 422),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_request_is_refused(client, session, what):
    method, path, headers, body, status = HOSTILE[what]
    before = session.drawings.revisions(), len(session.jobs.journal.jobs)
    answer = client.request(method, path, headers=headers, content=body)
    assert answer.status_code == status, answer.text
    assert set(answer.json()["error"]) == {"got", "wanted", "remedy"}
    assert (session.drawings.revisions(), len(session.jobs.journal.jobs)) == before


def test_a_chunked_body_is_refused(client):
    answer = client.post("/api/jobs", content=iter([b"{}"]))
    assert answer.status_code == 411


def test_a_full_disk_loses_nothing(client, session, monkeypatch):
    import errno

    from studio import drawings

    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    before = session.annotation(4)
    monkeypatch.setattr(drawings, "write_mask", full)
    headers = {"If-Match": before[1]}
    answer = client.put("/api/annotations/4", content=drawn(50).tobytes(), headers=headers)
    assert answer.status_code == 507 and "No space left" in answer.json()["error"]["got"]
    assert session.annotation(4)[1] == before[1]


# Processes


def test_the_web_process_imports_no_torch(root):
    code = (
        "import sys; from studio.server import *; from studio.place import find_place\n"
        "if __name__ == '__main__':\n"
        f"    with Session(find_place('toy', 'other', root=Path({str(root)!r}))) as session:\n"
        "        session.look('pool-1', 'mask')[0].result()\n"
        "        print('torch' in sys.modules)\n"
    )
    path = root / "web.py"
    path.write_text(code)
    done = subprocess.run([sys.executable, path], capture_output=True, text=True, check=False)
    assert done.stdout == "False\n", done.stderr


def test_a_lane_that_dies_is_started_again(session):
    draw(session, 1, drawn(1))
    finished(session, session.fit())
    before = session.look("pool-2", "mask")[0].result()
    old = session.quick.process.pid
    os.kill(old, 9)
    until(lambda: session.quick.process.pid != old or _try(session))
    version = session.current.version
    until(lambda: session.current.version > version or session.current.state == "settled")
    session.looks.kept.clear()
    assert session.look("pool-2", "mask")[0].result() == before


def _try(session):
    """A task, since a lane notices the death of its process when it needs it."""
    session.looks.kept.clear()
    assert session.look("seed-3", "mask")[0].exception(60) is not None
    return True


def test_a_session_goes_on_where_it_was(root):
    place = find_place("toy", "again", root=root)
    with Session(place) as session:
        draw(session, 1, drawn(1))
        finished(session, session.fit())
        seen = session.look("seed-5", "mask")[0].result()
        job = session.export(2)  # left undone, perhaps
    with Session(place) as session:
        assert (session.annotation(1)[0] == drawn(1)).all()
        until(lambda: session.current.state == "settled")
        assert session.look("seed-5", "mask")[0].result() == seen
        finished(session, session.jobs.get(job.id))


def test_a_session_without_a_pipelines_masks_has_its_own(root, tmp_path):
    place = replace(find_place("toy", "fresh", root=root), root=tmp_path)
    place.state.mkdir(parents=True)
    latents = Path(root / "data/latents/toy.zarr.zip").read_bytes()
    place.data("latents").write_bytes(latents)
    with Session(place) as session:
        assert session.pool.classes == toys.CLASSES and len(session.pool.seeds) == 6
        assert set(session.look("pool-1", "mask")[0].result()) == {UNLABELED}
        draw(session, 1, drawn(1))
        finished(session, session.fit())
        assert set(session.look("pool-1", "mask")[0].result()) <= set(range(4))
    assert Group(place.data("masks")).attributes["classes"] == list(toys.CLASSES)


def test_a_name_or_a_study_that_is_none_is_refused(root):
    with pytest.raises(InputError, match="study 'cats'; wanted one of toy"):
        find_place("cats", root=root)
    with pytest.raises(InputError, match="got --name"):
        find_place("toy", "../x", root=root)
    with pytest.raises(Missing):
        raise Missing("a", "b", "c")
