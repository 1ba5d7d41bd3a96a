"""Photos as people have them: read upright, cut as FFHQ's, faces found by published networks."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from pipeline.data import landmarks as networks
from pipeline.data.alignment import MIN_SIDE, Square, cut, paste, square_of, whole
from pipeline.data.images import to_uint8
from pipeline.data.options import Alignment
from pipeline.data.photo_files import read_photo
from pipeline.data.photos import check_photos, read_subject
from pipeline.generators.readers.wheels import fetch_wheel
from pipeline.generators.registry import load_generator
from pipeline.runtime.errors import InputError

ROOT = Path(__file__).parents[1]
# Left half red, right half blue, the lower quarter dark: which way is up can be seen.
PLAIN = np.zeros((40, 60, 3), np.uint8)
PLAIN[:, :30], PLAIN[:, 30:], PLAIN[30:] = (200, 30, 30), (30, 30, 200), (10, 10, 10)


def saved(folder, name, image, **options):
    path = folder / name
    image.save(path, **options)
    return path


@pytest.mark.parametrize("kind", ["png", "webp", "jpg", "cmyk", "palette", "mpo", "no suffix"])
def test_a_photo_of_any_kind_has_its_colors(tmp_path, kind):
    image = Image.fromarray(PLAIN)
    if kind == "cmyk":
        path = saved(tmp_path, "a.jpg", image.convert("CMYK"), quality=95)
    elif kind == "palette":
        path = saved(tmp_path, "a.png", image.quantize(16))
    elif kind == "mpo":
        path = saved(tmp_path, "a.jpg", image, format="MPO", save_all=True, append_images=[image])
    elif kind == "no suffix":
        path = saved(tmp_path, "photo", image, format="PNG")
    else:
        path = saved(tmp_path, f"a.{kind}", image, **({"quality": 95} if kind != "png" else {}))
    found = read_photo(path)
    assert found.shape == PLAIN.shape and found.dtype == np.uint8
    for place in ((10, 10), (10, 50), (36, 30)):
        assert np.abs(found[place].astype(int) - PLAIN[place]).max() <= 8, (kind, place)


@pytest.mark.parametrize("turn", range(1, 9))
def test_exif_turns_the_photo_upright(tmp_path, turn):
    exif = Image.Exif()
    exif[0x112] = turn
    stored = {
        1: PLAIN,
        2: PLAIN[:, ::-1],
        3: PLAIN[::-1, ::-1],
        4: PLAIN[::-1],
        5: PLAIN.transpose(1, 0, 2),
        6: np.rot90(PLAIN),
        7: PLAIN[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(PLAIN, -1),
    }[turn]
    path = saved(tmp_path, "a.png", Image.fromarray(np.ascontiguousarray(stored)), exif=exif)
    assert (read_photo(path) == PLAIN).all()


def test_depth_gray_and_transparency(tmp_path):
    deep = Image.fromarray((np.arange(256, dtype=np.uint16) * 257).reshape(16, 16))
    assert (read_photo(saved(tmp_path, "deep.png", deep))[..., 0].ravel() == range(256)).all()
    gray = Image.fromarray(PLAIN[..., 0])
    assert (read_photo(saved(tmp_path, "gray.png", gray)) == PLAIN[..., :1]).all()
    clear = np.dstack([PLAIN, np.where(PLAIN[..., 0] > 100, 255, 0).astype(np.uint8)])
    found = read_photo(saved(tmp_path, "clear.png", Image.fromarray(clear)))
    assert (found[:30, :30] == PLAIN[:30, :30]).all() and (found[:, 30:] == 255).all()


def test_an_embedded_profile_is_applied(tmp_path):
    image = Image.fromarray(PLAIN)
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert (read_photo(saved(tmp_path, "a.png", image, icc_profile=lab)) == PLAIN).all()
    broken = saved(tmp_path, "b.png", image, icc_profile=b"no profile")
    assert (read_photo(broken) == PLAIN).all()


def test_what_is_no_photo_gets_a_sentence(tmp_path):
    whole = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(whole, "JPEG")
    files = {
        "cut.jpg": (whole.getvalue()[:1500], "cannot be read"),
        "text.jpg": (b"hello", "cannot be read"),
        "empty.png": (b"", "cannot be read"),
        "phone.jpg": (b"\0\0\0\x18ftypheic" + bytes(20), "HEIC"),
    }
    for name, (content, sentence) in files.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=sentence) as found:
            read_photo(tmp_path / name)
        assert name in str(found.value) and "\n" not in str(found.value)
    with pytest.raises(InputError, match="no file at"):
        read_photo(tmp_path / "absent.png")
    frames = [Image.fromarray(PLAIN), Image.fromarray(PLAIN[::-1].copy())]
    moving = saved(tmp_path, "m.webp", frames[0], save_all=True, append_images=frames[1:])
    with pytest.raises(InputError, match="several pictures"):
        read_photo(moving)


def test_many_pixels_are_refused_before_they_are_read(tmp_path):
    path = saved(tmp_path, "large.png", Image.new("1", (12000, 8000)))
    with pytest.raises(InputError, match="96 megapixels; wanted at most 40"):
        read_photo(path)


def test_the_square_is_that_of_the_recipe():
    # By hand: the eyes' distance 60 counts twice, 120; the way down 50 times 1.8, 90.
    square = square_of(np.array([[70.0, 100], [130, 100], [80, 150], [120, 150]]))
    assert square.center == (100, 105) and np.allclose(square.half, (120, 0))
    # Now the way down counts more: 70 times 1.8, 126.
    square = square_of(np.array([[70.0, 100], [130, 100], [80, 170], [120, 170]]))
    assert square.center == (100, 107) and np.allclose(square.half, (126, 0))


@pytest.mark.parametrize("degrees", [0, 30, 90, 180, -45])
def test_the_square_turns_with_the_face_and_names_may_be_swapped(degrees):
    upright = np.array([[70.0, 100], [130, 100], [80, 150], [120, 150]])
    a = np.radians(degrees)
    turn = np.array([[np.cos(a), np.sin(a)], [-np.sin(a), np.cos(a)]])
    square = square_of(upright @ turn)
    assert np.allclose(square.center, np.array([100, 105]) @ turn)
    assert np.allclose(square.half, np.array([120, 0]) @ turn)
    swapped = square_of((upright @ turn)[[1, 0, 3, 2]])
    assert np.allclose(swapped.half, square.half) and np.allclose(swapped.center, square.center)


@pytest.mark.parametrize(
    "points",
    [
        [[100, 100], [100, 100], [100, 100], [100, 100]],  # one place
        [[70, 100], [130, 100], [300, 100], [350, 100]],  # all on a line
        [[70, 100], [130, 100], [80, 400], [120, 400]],  # a mouth far below
        [[70, 100], [130, 100], [20, 150], [220, 150]],  # a mouth of three eye distances
        [[70, 100], [130, 100], [100, 150], [100, 150]],  # a mouth of one place
        [[70, 100], [80, 150], [120, 150], [130, 100]],  # named in another order
    ],
)
def test_four_points_that_are_no_face_get_a_sentence(points):
    with pytest.raises(InputError, match="four points that are no face"):
        square_of(np.array(points, float))


def test_a_small_face_gets_a_sentence():
    with pytest.raises(InputError, match=f"24 px wide; wanted {MIN_SIDE} px or more"):
        square_of(np.array([[7.0, 10], [13, 10], [8, 15], [12, 15]]))


def picture(height=300, width=400):
    """A smooth image whose pixels tell their place: red x, green y."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 255 / width, y * 255 / height, 0 * x + 90], -1).round().astype(np.uint8)


@pytest.mark.parametrize("size", [64, 200, 256])
def test_a_cut_shows_the_square_at_any_size(size):
    square = Square((200, 150), (100 * np.cos(0.3), 100 * np.sin(0.3)))
    found = cut(picture(), square, size)
    line = (np.arange(size) + 0.5) / size
    x, y = np.moveaxis(square.to_photo(np.stack(np.meshgrid(line, line), -1)), -1, 0)
    assert np.abs(found[0] - (x - 0.5) * 255 / 400).max() < 2
    assert np.abs(found[1] - (y - 0.5) * 255 / 300).max() < 2


def test_a_whole_photo_is_cut_to_itself():
    noise = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    found = cut(noise, whole(noise), 128)
    means = noise.reshape(128, 2, 128, 2, 3).astype(float).mean((1, 3)).transpose(2, 0, 1)
    assert np.abs(found - means).max() <= 1


def test_beyond_the_photo_its_reflection_fades_to_one_color():
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)
    square = Square((0, 150), (150, 0))  # its left half lies beyond the photo
    found = cut(noise, square, 100).astype(float)
    assert found[:, :, 70:].std() > 15  # as the photo, averaged
    assert found[:, :, 35:50].std() < 8  # blurred
    assert found[0, :, :15].std() < 1.5  # faded


def test_paste_is_the_reverse_of_cut_and_changes_nothing_else():
    photo = picture()
    square = Square((200, 150), (100 * np.cos(0.3), 100 * np.sin(0.3)))
    share = np.zeros((256, 256), np.float32)
    share[64:192, 64:192] = 1
    aligned = cut(photo, square, 256)
    same = paste(photo, square, aligned, share)
    assert np.abs(same.astype(int) - photo).max() <= 2
    changed = paste(photo, square, 255 - aligned, share)
    touched = (changed != photo).any(-1)
    assert 0.2 < touched.sum() / square.side**2 < 0.3
    assert (changed[~touched] == photo[~touched]).all()


def test_points_of_several_photos(tmp_path):
    path = saved(tmp_path, "a.png", Image.fromarray(picture()))
    points = "170,100 230,100 180,150 220,150"
    subject = read_subject(path, Alignment(points=(points,)), points)
    assert subject.name == "a" and subject.square.center == (200, 105)
    assert subject.aligned(64).shape == (3, 64, 64)
    for wrong, sentence in {
        "170,100 230,100": "wanted four as x,y in px",
        "170,100 230,100 180,150 2200,150": "of a photo of 400x300 px; wanted four in the photo",
        "170,100 230,100 180,150 a,b": "wanted four as x,y in px",
        "170,100 171,100 180,150 220,150": "no face",
    }.items():
        with pytest.raises(InputError, match=sentence) as found:
            read_subject(path, Alignment(), wrong)
        assert "a.png" in str(found.value)
    assert check_photos([path], Alignment(points=(points,))) == [points]
    assert check_photos([path, "b.png"], Alignment()) == [None, None]
    with pytest.raises(InputError, match="1 --points for 2 photos"):
        check_photos([path, "b.png"], Alignment(points=(points,)))
    with pytest.raises(InputError, match="two photos called a"):
        check_photos([path, "other/a.jpg"], Alignment())
    with pytest.raises(InputError, match="an aligned photo of 400x300 px") as found:
        read_subject(path, Alignment(aligned=True))
    assert "a.png" in str(found.value)


def test_without_the_extra_there_is_a_sentence(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(InputError, match="pip install -e"):
        networks._network(b"")


@pytest.fixture(scope="session")
def faces(request):
    """The networks; skipped where LiteRT is not installed."""
    pytest.importorskip("ai_edge_litert", reason="the extra `photos` is not installed")
    here = ROOT / ".store" / "wheels"
    folder = here if here.is_dir() else request.config.cache.mkdir("wheels")
    package = networks.PACKAGE, networks.VERSION, networks.SHA256
    return networks.Faces(fetch_wheel(*package, folder, networks.PLATFORM))


@pytest.fixture(scope="session")
def two_samples(published):
    """Two images of the published generator: aligned faces, by the data it was trained on."""
    generator = load_generator(published("ffhq"))
    z = torch.randn(2, generator.z_dim, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        images = [generator.synthesis(generator.mapping(one[None], 0.5)) for one in z]
    return [to_uint8(image, 512)[0] for image in images]


def scene(*places):
    """A gray photo with aligned faces pasted in: (face, square)."""
    photo = np.full((1200, 1600, 3), 127, np.uint8)
    for face, square in places:
        photo = paste(photo, square, face, np.ones(face.shape[1:], np.float32))
    return photo


@pytest.mark.real
@pytest.mark.parametrize("half", [(300, 0), (110, 20), (280, 150)])
def test_a_face_is_found_where_it_was_put(faces, two_samples, half):
    for face in two_samples:
        square = Square((900, 500), half)
        found = faces.find(scene((face, square)))
        assert np.abs(np.subtract(found.center, square.center)).max() < 0.03 * square.side
        assert np.abs(np.subtract(found.half, square.half)).max() < 0.04 * square.side


@pytest.mark.real
def test_no_face_two_faces_and_small_faces_get_sentences(faces, two_samples):
    one, two = two_samples
    with pytest.raises(InputError, match="no face is found; wanted one face"):
        faces.find(scene())
    both = scene((one, Square((400, 500), (300, 0))), (two, Square((1200, 500), (300, 0))))
    with pytest.raises(InputError, match="a photo of 2 faces"):
        faces.find(both)
    with pytest.raises(InputError, match="wanted 128 px or more"):
        faces.find(scene((one, Square((400, 500), (58, 0)))))


@pytest.mark.real
def test_landmarks_follow_the_face(faces, two_samples):
    one, two = (faces.landmarks(face) for face in two_samples)
    assert networks.landmark_distance(one, one) == 0
    moved = faces.landmarks(np.roll(two_samples[0], 10, axis=2))  # 10 of 512 px to the right
    step = (moved - one)[:, :2].mean(0) * 512
    assert np.abs(step - (10, 0)).max() < 2
    eyes = networks.eye_distance(networks.four_points(one)) * 512
    assert networks.landmark_distance(one, moved) == pytest.approx(10 / eyes, rel=0.2)
    assert networks.landmark_distance(one, two) > 0.03
    with pytest.raises(InputError, match="without a face in its middle"):
        faces.landmarks(np.full((3, 256, 256), 127, np.uint8))


@pytest.mark.real
def test_a_face_turned_away_gets_a_sentence(faces, two_samples, monkeypatch):
    one = faces.landmarks(two_samples[0])
    assert abs(networks.yaw(one)) < 25
    a, turned = np.radians(70), one.copy()
    turned[:, 0] = one[:, 0] * np.cos(a) - one[:, 2] * np.sin(a)
    turned[:, 2] = one[:, 0] * np.sin(a) + one[:, 2] * np.cos(a)
    assert networks.yaw(turned) == pytest.approx(networks.yaw(one) + 70, abs=1)
    monkeypatch.setattr(networks.Faces, "landmarks", lambda self, aligned: turned)
    with pytest.raises(InputError, match=r"turned away by \d+ degrees"):
        faces.find(scene((two_samples[0], Square((900, 500), (300, 0)))))
