"""A study that is open: its generator, samples as ws, feature maps and pictures."""

from collections import OrderedDict
from functools import cached_property
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from pipeline.data.annotation_files import open_pool
from pipeline.data.annotations import Pool
from pipeline.data.arrays import Group, write_group
from pipeline.data.features import Source, open_source
from pipeline.data.images import to_uint8
from pipeline.data.inputs import Study
from pipeline.data.palette import UNLABELED
from pipeline.editing.semantic.cases import check_latents
from pipeline.editing.semantic.method import within
from pipeline.extractors.appearance import read_appearance
from pipeline.extractors.networks import LSE, load_extractor
from pipeline.generators.contract import Generator
from pipeline.generators.latents import sample_z
from pipeline.generators.taps import Tap, record, select
from pipeline.runtime.errors import InputError
from pipeline.runtime.weights import read_safetensors
from pipeline.teachers.registry import Teacher, load_teacher
from studio.place import Place
from studio.samples import Sample

KEPT_MAPS = 10  # samples; at 256 px of label 28 MB each
QUALITY = 92  # of JPEG

Maps = dict[str, Tensor]  # {tap name: [1, C, H, W]}


class Opened:
    """What both lanes know of a study. Maps are of the taps that guide edits."""

    def __init__(self, place: Place):
        self.place = place
        check_latents(Group(place.data("latents")), place.checkpoint)
        self.source: Source = open_source(
            place.checkpoint, place.data("latents"), "auto", place.compute
        )
        self.source.generator()  # outside of inference mode: edits take gradients through it
        self._maps: OrderedDict[Sample, Maps] = OrderedDict()

    @property
    def generator(self) -> Generator:
        """The frozen generator."""
        return self.source.generator()

    @cached_property
    def study(self) -> Study:
        """The study as a few-shot fit reads it; without a pipeline's masks, one that has none."""
        path = self.place.data("masks")
        if not path.exists():
            blank = np.full((self.place.pool, self.place.size, self.place.size), UNLABELED)
            masks = {"pool/masks": blank.astype(np.uint8)}
            write_group(path, masks, {"classes": list(self.teacher.classes)})
        return Study(self.source, str(path), self.place.align_corners)

    @cached_property
    def pool(self) -> Pool:
        """The samples that can be annotated."""
        return open_pool(self.source, self.study.masks)

    @cached_property
    def taps(self) -> tuple[Tap, ...]:
        """The taps that guide edits."""
        return select(self.generator.taps, self.place.loop_tap_resolution)

    @cached_property
    def teacher(self) -> Teacher:
        """Who labels the study's samples."""
        return self.segmenter(self.place.teacher)

    @cached_property
    def judge(self) -> Teacher | None:
        """Who scores edits, without a part in them."""
        return self.segmenter(self.place.judge) if self.place.judge else None

    def segmenter(self, path: str) -> Teacher:
        """A network of the study's classes."""
        return load_teacher(path, self.place.labels, self.source.device)

    @cached_property
    def appearance(self) -> LSE | None:
        """The linear reading of images, where one has been fitted of the taps that are kept."""
        path = self.place.appearance
        found = read_appearance(path, self.source.device) if path else None
        return found if found and set(found.taps) <= set(self.taps) else None

    def guide(self, path: Path) -> LSE:
        """The part of a fitted LSE that guides edits."""
        found = load_extractor(path, self.source.device)
        if not isinstance(found, LSE):
            raise InputError(f"{path}, which is no LSE", "an LSE", "fit one with fit_extractor")
        return within(found, self.place.loop_tap_resolution)

    @torch.inference_mode()
    def ws(self, sample: Sample) -> Float[Tensor, "1 num_ws w_dim"]:
        """A sample's ws, with its edits' vectors added."""
        if sample.base == "pool":
            ws = self.source.ws("pool", sample.number, sample.number + 1)
        elif sample.base == "seed":
            z = torch.from_numpy(sample_z([sample.number], self.generator.z_dim))
            ws = self.generator.mapping(z.to(self.source.device), self.pool.truncation_psi)
        else:
            tensors, _ = read_safetensors(self.place.photo(sample.number) / "ws.safetensors")
            ws = tensors["ws"].to(self.source.device).view(1, self.generator.num_ws, -1)
        for move in sample.moves:
            (vector,) = read_safetensors(Path(move.folder) / "vector.safetensors")[0].values()
            ws = ws + move.strength * vector.to(ws.device)
        return ws

    @torch.inference_mode()
    def maps(self, sample: Sample) -> Maps:
        """The maps that the guide reads; those of the last samples are kept in half the bytes."""
        if sample not in self._maps:
            with record(self.generator, self.taps) as features:
                self.generator.synthesis(self.ws(sample), stop_at=self.taps[-1])
            kept = {tap.name: features[tap.name].to(torch.bfloat16) for tap in self.taps}
            self._maps[sample] = kept
            while len(self._maps) > KEPT_MAPS:
                self._maps.popitem(last=False)
        self._maps.move_to_end(sample)
        return {name: x.float() for name, x in self._maps[sample].items()}

    @torch.inference_mode()
    def image(
        self, ws: Float[Tensor, "1 num_ws w_dim"], size: int | None = None
    ) -> UInt8[np.ndarray, "3 size size"]:
        """The image [3, S, S] of ws, area-averaged to `size` px; None: as it is."""
        return to_uint8(self.generator.synthesis(ws), size or self.generator.resolution)[0]

    def preview_size(self) -> int:
        """Side of previews, px."""
        if self.appearance is not None:
            return self.appearance.taps[-1].resolution
        return min(self.place.size, self.generator.resolution)

    @torch.inference_mode()
    def preview(self, sample: Sample) -> UInt8[np.ndarray, "3 size size"]:
        """A sample's image at preview size: the linear reading of its maps, where there is one."""
        maps = None if self.appearance is None else self.maps(sample)
        return self.frame(self.ws(sample), maps)

    @torch.inference_mode()
    def frame(self, ws: Tensor, maps: Maps | None = None) -> UInt8[np.ndarray, "3 size size"]:
        """The same of ws, and of their maps where somebody has them."""
        if self.appearance is None:
            return self.image(ws, self.preview_size())
        if maps is None:
            with record(self.generator, self.appearance.taps) as maps:
                self.generator.synthesis(ws, stop_at=self.appearance.taps[-1])
        size = self.preview_size()
        return to_uint8(self.appearance.logits(maps, size), size)[0]


def jpeg(image: UInt8[np.ndarray, "3 height width"]) -> bytes:
    """A JPEG file."""
    file = BytesIO()
    pixels = np.ascontiguousarray(image.transpose(1, 2, 0))
    Image.fromarray(pixels).save(file, "JPEG", quality=QUALITY)
    return file.getvalue()
