"""Photographs as people have them, read as upright RGB images of 8 bit; PNGs of pixels."""

import io
import warnings
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageCms, ImageOps

from pipeline.runtime.errors import InputError, reading
from pipeline.runtime.files import atomic

Photo = UInt8[np.ndarray, "height width 3"]

FORMATS = ("JPEG", "PNG", "WEBP")  # Pillow calls a JPEG with a second picture in it an MPO
MAX_MEGAPIXELS = 40
PAPER = (255, 255, 255, 255)  # what lies behind transparent pixels
# The brand of an ISO media file, its bytes 8 to 11: what phones call HEIC or HEIF, and AVIF.
BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1", b"avif", b"avis")


def read_photo(path: str | Path) -> Photo:
    """A photograph [height, width, 3], turned as its EXIF says, in sRGB.

    Gray, palette, CMYK, 16 bit and transparent files are converted; transparency becomes white. An
    embedded color profile is applied. InputError for any file that is no whole JPEG, PNG or WebP of
    one picture, or of more than 40 megapixels.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"no file at {path}", "a photo (JPEG, PNG, WebP)", "name an existing one")
    with path.open("rb") as file:
        head = file.read(12)
    if head[4:8] == b"ftyp" and head[8:12] in BRANDS:
        raise InputError(
            f"{path}, a HEIC or AVIF file", "a JPEG, PNG or WebP", "export the photo as JPEG"
        )
    with (
        reading(path, "a whole JPEG, PNG or WebP", "export or copy the photo again"),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")  # of many pixels, which are counted here, and damaged EXIF
        with Image.open(path, formats=FORMATS) as image:
            _check(path, image)
            image.load()
            upright = ImageOps.exif_transpose(image)
            return np.asarray(_rgb(upright, image.info.get("icc_profile")))


def _check(path: Path, image: Image.Image) -> None:
    """InputError for too many pixels, before they are read, and for moving pictures."""
    megapixels = image.width * image.height / 1e6
    if megapixels > MAX_MEGAPIXELS:
        raise InputError(
            f"{path} of {image.width}x{image.height} px, {megapixels:.0f} megapixels",
            f"at most {MAX_MEGAPIXELS} megapixels",
            "make it smaller, or crop it to the face",
        )
    if getattr(image, "is_animated", False) and image.format != "MPO":
        raise InputError(f"{path} of several pictures", "one", "export one of them")


def _rgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """An image of any mode as RGB; the colors by its profile, if that can be read."""
    if image.mode.startswith("I"):  # 16 bit gray, which Pillow would clip
        values = np.asarray(image).astype(np.float32) / 257
        image = Image.fromarray(values.round().clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, PAPER), image).convert("RGB")
    elif image.mode not in ("RGB", "CMYK"):
        image = image.convert("RGB")
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            srgb = ImageCms.createProfile("sRGB")
            return ImageCms.profileToProfile(image, source, srgb, outputMode="RGB") or image
        except (ImageCms.PyCMSError, OSError):  # damaged, or of another kind of image
            pass
    return image.convert("RGB")


def write_png(path: str | Path, pixels: UInt8[np.ndarray, "3 height width"]) -> None:
    """Write an image, atomically."""
    with atomic(path) as partial:
        Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0))).save(partial, "PNG")
