"""Faces and their landmarks, by published networks that nobody here trained.

BlazeFace (Bazarevsky et al. 2019) finds faces, FaceMesh (Kartynnik et al. 2019) 468 landmarks of
one. Both are files in MediaPipe's wheel (Apache-2.0), read as data. LiteRT runs them; the optional
extra `photos` installs it.
"""

from collections.abc import Callable
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32, UInt8
from PIL import Image

from pipeline.data.alignment import Points, Square, cut, square_of
from pipeline.data.photo_files import Photo
from pipeline.generators.readers.wheels import fetch_wheel, read_member
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import store_root

PACKAGE, VERSION = "mediapipe", "0.10.14"
SHA256 = "9b1e72d754cd9e1b4b88d80ec9ead2f1cbe8424b7f883d3bda53341b982a9f8b"
# Of the wheel whose files are read: it is not installed, so any machine may read this one.
PLATFORM = ("manylinux2014_x86_64", "3.12")
DETECTOR = "mediapipe/modules/face_detection/face_detection_full_range_sparse.tflite"
MESH = "mediapipe/modules/face_landmark/face_landmark.tflite"

DETECTOR_SIZE, CELLS = 192, 48  # px of the detector's input; cells of its grid along a side
MESH_SIZE = 192  # px
CONTEXT = (0.12, 0.14, 0.88, 0.90)  # left, top, right, bottom of what the mesh sees of a square
CROP_SIZE = 384  # px of the square that landmarks are found in
MIN_SCORE = 0.5  # probability of a face
SEPARATE = 1.5  # eye distances from which on two places are two faces: a head is wider
MAX_YAW = 50.0  # degrees that a face may be turned to a side

# Landmarks around each eye, as one looks from the left, and the corners of the mouth.
LEFT_EYE, RIGHT_EYE = (33, 160, 158, 133, 153, 144), (362, 385, 387, 263, 373, 380)
MOUTH = (61, 291)
OUTER = (33, 263)  # corners of the eyes

Landmarks = Float[np.ndarray, "468 3"]  # x, y, depth of the square's side


class Faces:
    """The two networks, read from the wheel; InputError if LiteRT is not installed."""

    def __init__(self, wheel: Path):
        self._wheel = wheel

    @cached_property
    def _detector(self) -> Callable[[np.ndarray], list[np.ndarray]]:
        return _network(read_member(self._wheel, DETECTOR))

    @cached_property
    def _mesh(self) -> Callable[[np.ndarray], list[np.ndarray]]:
        return _network(read_member(self._wheel, MESH))

    def find(self, photo: Photo) -> Square:
        """The square that FFHQ would cut around the one face of a photo.

        InputError for no face, several, one that is too small, or one turned away.
        """
        found = self.detect(photo)
        if len(found) != 1:
            remedy = "crop the photo to the face, or name --points (eyes and mouth corners)"
            got = "a photo in which no face is found"
            if found:
                places = ", ".join(f"x {x:.0f} y {y:.0f}" for x, y in (f.mean(0) for f in found))
                got = f"a photo of {len(found)} faces (at {places} px)"
            raise InputError(got, "one face", remedy)
        square = square_of(found[0])
        for _ in range(2):  # the detector's points are rough, and the mesh wants an aligned face
            landmarks = self.landmarks(cut(photo, square, CROP_SIZE))
            if abs(turn := yaw(landmarks)) > MAX_YAW:
                raise InputError(
                    f"a face turned away by {abs(turn):.0f} degrees",
                    f"one that looks ahead, within {MAX_YAW:.0f} degrees",
                    "take another photo",
                )
            square = square_of(square.to_photo(four_points(landmarks)))
        return square

    def landmarks(self, aligned: UInt8[np.ndarray, "3 size size"]) -> Landmarks:
        """The landmarks of an aligned face; InputError if there is none."""
        size = aligned.shape[-1]
        box = tuple(edge * size for edge in CONTEXT)
        image = Image.fromarray(np.ascontiguousarray(aligned.transpose(1, 2, 0)))
        image = image.resize((MESH_SIZE, MESH_SIZE), Image.Resampling.BILINEAR, box)
        points, score = self._mesh(np.asarray(image, np.float32) / 255)
        if _sigmoid(score).item() < MIN_SCORE:
            raise InputError(
                "an aligned photo without a face in its middle",
                "a face where FFHQ has it",
                "leave --aligned out, or name --points",
            )
        left, top, right, _ = CONTEXT
        places = points.reshape(468, 3) / MESH_SIZE * (right - left)
        return places.astype(np.float64) + np.array([left, top, 0.0])

    def detect(self, photo: Photo) -> list[Points]:
        """Eyes and mouth corners, roughly, of each face in px, the surest face first.

        A face below a sixth of the photo escapes the detector. So where none is found, overlapping
        parts of half the photo's sides are searched.
        """
        found = self._search(photo, (0, 0))
        height, width, _ = photo.shape
        if not found and min(height, width) > DETECTOR_SIZE:
            corners = [(top, left) for top in range(3) for left in range(3)]
            for top, left in ((i * height // 4, j * width // 4) for i, j in corners):
                part = photo[top : top + height // 2, left : left + width // 2]
                found += self._search(part, (left, top))
        return [points for _, points in _distinct(found)]

    def _search(self, photo: Photo, origin: tuple[int, int]) -> list[tuple[float, Points]]:
        """(score, eyes and mouth corners) of all that may be a face; a face comes several times."""
        side, image = max(photo.shape[:2]), Image.fromarray(photo)
        padded = Image.new("RGB", (side, side))
        padded.paste(image)
        small = padded.resize((DETECTOR_SIZE, DETECTOR_SIZE), Image.Resampling.BILINEAR)
        boxes, logits = self._detector(np.asarray(small, np.float32) / 127.5 - 1)
        scores = _sigmoid(logits[:, 0])
        line = (np.arange(CELLS) + 0.5) / CELLS
        cells = np.stack(np.meshgrid(line, line), -1).reshape(-1, 1, 2)
        # Of a cell: box center and size, then eyes, nose, mouth and ears, from the cell's center.
        points = (boxes[:, 4:].reshape(-1, 6, 2) / DETECTOR_SIZE + cells) * side + origin
        sure = np.flatnonzero(scores >= MIN_SCORE)
        return [(float(scores[i]), _corners(points[i])) for i in sure]


def _corners(points: np.ndarray) -> Points:
    """Eyes and the corners of a mouth as wide as .8 of the eyes' distance, of the six points."""
    left, right, _, mouth, _, _ = points
    return np.stack([left, right, mouth - 0.4 * (right - left), mouth + 0.4 * (right - left)])


def _distinct(found: list[tuple[float, Points]]) -> list[tuple[float, Points]]:
    """The surest of those that are one face, by their centers' distance."""
    kept: list[tuple[float, Points]] = []
    for score, points in sorted(found, key=lambda one: -one[0]):
        apart = [np.hypot(*(points.mean(0) - other.mean(0))) for _, other in kept]
        least = [SEPARATE * max(eye_distance(points), eye_distance(other)) for _, other in kept]
        if all(a >= b for a, b in zip(apart, least, strict=True)):
            kept.append((score, points))
    return kept


def eye_distance(points: Points) -> float:
    """The distance of the first two of four points."""
    return float(np.hypot(*(points[1] - points[0])))


def four_points(landmarks: Landmarks) -> Points:
    """Centers of the eyes and corners of the mouth, as FFHQ's recipe takes them."""
    eyes = [landmarks[list(ring)].mean(0) for ring in (LEFT_EYE, RIGHT_EYE)]
    return np.stack([*eyes, *landmarks[list(MOUTH)]])[:, :2]


def yaw(landmarks: Landmarks) -> float:
    """Degrees that a face is turned to a side, by the depths of the eyes' outer corners."""
    x, _, depth = landmarks[OUTER[1]] - landmarks[OUTER[0]]
    return float(np.degrees(np.arctan2(depth, x)))


def landmark_distance(first: Landmarks, second: Landmarks) -> float:
    """Mean distance in the image of 468 landmarks, in eye distances of the first face."""
    apart = np.hypot(*(first - second)[:, :2].T).mean()
    return float(apart / eye_distance(four_points(first)))


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(x, -80, 80)))


def _network(content: bytes) -> Callable[[np.ndarray], list[np.ndarray]]:
    """A network [height, width, 3] to its outputs, on one thread."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise InputError(
            "no ai-edge-litert, which finds faces and landmarks",
            "the optional extra `photos`",
            "pip install -e '.[photos]', or name four points by --points",
        ) from error
    interpreter = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    (where,) = interpreter.get_input_details()
    outputs = [detail["index"] for detail in interpreter.get_output_details()]

    def run(image: Float32[np.ndarray, "height width 3"]) -> list[np.ndarray]:
        interpreter.set_tensor(where["index"], image[None])
        interpreter.invoke()
        return [interpreter.get_tensor(index)[0] for index in outputs]

    return run


@lru_cache(maxsize=1)
def load_faces() -> Faces:
    """The networks from the store's wheel, which is fetched once."""
    folder = store_root() / "wheels"
    return Faces(fetch_wheel(PACKAGE, VERSION, SHA256, folder, PLATFORM))
