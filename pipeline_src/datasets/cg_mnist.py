"""Colored-and-gray MNIST: each digit once in gray, once in a colour that gives its class away in training only.

MNIST's own train (60,000) and test (10,000) parts. Gray is the image as it is. For the colour there is a published
file and its rule (Kim et al., Learning Not to Learn, CVPR 2019): ten mean colours, one per class; the ink of a training
image takes a colour drawn from a normal distribution about the mean of its class; a test image's mean is that of a
class drawn at random, so that colour says nothing. `colors`:

made       The rule applied to MNIST's files. The paper gives neither the ten colours nor the draws. Our means are
           nine even steps of hue and white; `variance` is the published file's (0.020 to
           0.050 in steps of 0.005), in units of full scale squared, per channel; drawn values are clipped.
published  The images of the authors' `mnist_10color_jitter_var_<variance>.npy`, in the order of MNIST's files; it holds
           a pickle, which is read without running it.

Both modalities become PNG files, one per digit.
"""

import colorsys
import gzip
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from pipeline_src.core.errors import UserError
from pipeline_src.core.params import SEED, Varies
from pipeline_src.datasets import lists, pickles
from pipeline_src.datasets.base import Clip, Download, FolderParams, Published, datasets

SIDE = 28
PARTS = {"train": ("train", 60_000), "test": ("t10k", 10_000)}
FIX = "fetch the files again"
SOURCE = "https://ossci-datasets.s3.amazonaws.com/mnist"

# Mean ink of each class, RGB: nine even steps of hue, and white.
MEANS = np.array([*(colorsys.hsv_to_rgb(i / 9, 1, 1) for i in range(9)), (1, 1, 1)])


class CGMnistParams(FolderParams):
    colors: Literal["made", "published"] = Field(description="colours drawn here by the published rule, or its file")
    variance: float = Field(
        ge=0, le=1, description="of the training colours about their class's; published 0.020 to 0.050, PMR 0.030"
    )
    seed: Annotated[int, Varies("data")] = Field(ge=0, le=SEED, description="of the colours that are made")


@datasets.register("cg_mnist")
class CGMnist(Published):
    Params = CGMnistParams
    params: CGMnistParams
    modalities = ("colored", "gray")
    classes = tuple("0123456789")
    title = "Colored-and-gray MNIST"
    homepage = "http://yann.lecun.com/exdb/mnist; https://github.com/feidfoe/learning-not-to-learn"
    licence = "MNIST CC BY-SA 3.0; the published colours: none stated"
    citation = "LeCun et al., Proc. IEEE 86(11), 1998; Kim et al., Learning Not to Learn, CVPR 2019"
    sizes: ClassVar = {split: count for split, (_, count) in PARTS.items()}
    shared = "All draws have MNIST's images and its test set; their colours differ."
    layout = """
train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, t10k-images-idx3-ubyte.gz, t10k-labels-idx1-ubyte.gz    fetched
mnist_10color_jitter_var_0.030.npy    only for `colors: published`: from the second address, dataset/colored_mnist
"""
    downloads = tuple(
        Download(f"{SOURCE}/{name}", name, sha256, size)
        for name, sha256, size in (
            (
                "train-images-idx3-ubyte.gz",
                "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
                9_912_422,
            ),
            ("train-labels-idx1-ubyte.gz", "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c", 28_881),
            (
                "t10k-images-idx3-ubyte.gz",
                "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
                1_648_877,
            ),
            ("t10k-labels-idx1-ubyte.gz", "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6", 4_542),
        )
    )

    def refuses(self, what: str) -> str | None:
        if what == "data" and self.params.colors == "published":
            return "expected colors: made, which are drawn from a seed, but got colors: published"
        return super().refuses(what)

    def fetch(self, folder: Path) -> None:
        """Write both images of every digit as PNG. Raises UserError if a file is missing, broken or does not fit."""
        lists.write_clips(folder, self._write(folder))

    def _write(self, folder: Path) -> Iterator[Clip]:
        import cv2

        rng = np.random.default_rng(self.params.seed)
        for split, (part, count) in PARTS.items():
            gray = idx(self.folder / f"{part}-images-idx3-ubyte.gz", (SIDE, SIDE))
            labels = idx(self.folder / f"{part}-labels-idx1-ubyte.gz", ())
            if len(gray) != len(labels) or len(gray) > count or labels.max(initial=0) > 9:
                raise UserError(
                    f"{self.folder}: expected a label from 0 to 9 for each of up to {count} {split} images, "
                    f"but got {len(labels)} labels and {len(gray)} images; {FIX}"
                )
            if self.params.colors == "published":
                colored = self._published(split, labels)
            else:
                colored = made(gray, labels, split, self.params.variance, rng)
            for i, label in enumerate(labels):
                names = {m: Path(f"{m}/{split}-{i // 1000:02d}/{i:05d}.png") for m in self.modalities}
                for image, file in ((colored[i, ..., ::-1], names["colored"]), (gray[i], names["gray"])):
                    (folder / file).parent.mkdir(parents=True, exist_ok=True)
                    if not cv2.imwrite(str(folder / file), np.ascontiguousarray(image)):
                        raise UserError(f"{folder / file}: expected to write it, but OpenCV failed; is the disk full?")
                clip = f"{split}-{i:05d}"
                yield Clip(clip, str(label), split, clip, names)

    def _published(self, split: str, labels: np.ndarray) -> np.ndarray:
        file = self.folder / f"mnist_10color_jitter_var_{self.params.variance:.3f}.npy"
        content = pickles.read(file)
        try:
            images, classes = np.asarray(content[f"{split}_image"]), np.asarray(content[f"{split}_label"])
        except (KeyError, TypeError, IndexError):
            raise UserError(f"{file}: expected {split}_image and {split}_label, but got others; get it again") from None
        if images.shape != (len(labels), SIDE, SIDE, 3) or not np.array_equal(classes.reshape(-1), labels):
            raise UserError(f"{file}: expected the {split} images in MNIST's order, but got other labels; get it again")
        return images.astype(np.uint8)

    def clips(self, folder: Path) -> Iterable[Clip]:
        return lists.read_clips(folder, self.modalities)


def made(gray: np.ndarray, labels: np.ndarray, split: str, variance: float, rng: np.random.Generator) -> np.ndarray:
    """Coloured images uint8 (N, 28, 28, 3), RGB, of gray ones (N, 28, 28)."""
    of = labels if split == "train" else rng.integers(10, size=len(labels))
    ink = (MEANS[of] + rng.normal(0, variance**0.5, (len(labels), 3))).clip(0, 1)
    return np.rint(gray[..., None] * ink[:, None, None]).astype(np.uint8)


def idx(file: Path, shape: tuple[int, ...]) -> np.ndarray:
    """The uint8 items of a gzipped IDX file, (N, *shape). Raises UserError if it has another shape or is truncated."""
    try:
        data = gzip.decompress(file.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{file}: expected a file of MNIST, but got no file; {FIX}") from None
    except (OSError, EOFError) as error:
        raise UserError(f"{file}: expected gzip, but got {error}; {FIX}") from None
    head = 4 * (2 + len(shape))
    sizes = tuple(np.frombuffer(data[4:head], ">u4").tolist()) if len(data) >= head else ()
    if data[:4] != bytes((0, 0, 8, 1 + len(shape))) or sizes[1:] != shape or len(data) != head + int(np.prod(sizes)):
        raise UserError(f"{file}: expected an IDX file of bytes (N{''.join(f', {n}' for n in shape)}), whole; {FIX}")
    return np.frombuffer(data, np.uint8, offset=head).reshape(sizes)
