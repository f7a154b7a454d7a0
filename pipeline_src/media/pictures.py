"""Picture files with Pillow, and how a picture of any shape becomes a square: shared by all that reads pictures."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pipeline_src.media.base import MediaError

if TYPE_CHECKING:
    from PIL.Image import Image

Fit = Literal["crop", "squash"]
FIT = (
    "how an oblong picture becomes square: `crop` scales the short side and keeps the centre; `squash` scales both "
    "sides, as torchvision's Resize((n, n)) does in most released code"
)
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "WEBP")
DEEP = ("I", "F")  # modes of more than 8 bits a channel, which a conversion would cut off


def extent(width: int, height: int, size: int, fit: Fit) -> tuple[int, int]:
    """Width and height that a picture is scaled to before the centre `size` x `size` is kept."""
    if fit == "squash":
        return size, size
    short = min(width, height)
    return max(size, round(width * size / short)), max(size, round(height * size / short))


def centre(width: int, height: int, size: int) -> tuple[int, int]:
    """Left and top of the centre square."""
    return (width - size) // 2, (height - size) // 2


def check(file: Path) -> None:
    """Raises MediaError if the file is missing, empty or no picture; its pixels are not read."""
    _open(file).close()


def read(file: Path, mode: Literal["RGB", "L"]) -> "Image":
    """The whole picture (of several, the first) in colour or grey. Transparency and rotation tags are not applied.

    Raises MediaError if the file is missing, empty, no picture, cut short, or has more than 8 bits a channel.
    """
    with _open(file) as picture:
        if picture.mode.split(";")[0] in DEEP:
            raise MediaError(f"expected 8 bits a channel, but got mode {picture.mode}")
        try:
            return picture.convert(mode)
        except (OSError, SyntaxError, ValueError) as error:  # Pillow's PNG reader raises SyntaxError
            raise MediaError(f"cannot be decoded: {error}") from error


def square(picture: "Image", size: int, fit: Fit) -> "Image":
    """Picture brought to `size` squared, bilinear, with a filter that widens as it shrinks: as torchvision's Resize."""
    from PIL.Image import Resampling

    width, height = extent(picture.width, picture.height, size, fit)
    left, top = centre(width, height, size)
    return picture.resize((width, height), Resampling.BILINEAR).crop((left, top, left + size, top + size))


def _open(file: Path) -> "Image":
    from PIL import Image, UnidentifiedImageError

    if not file.is_file():
        raise MediaError("missing file")
    if file.stat().st_size == 0:
        raise MediaError("empty file")
    try:
        return Image.open(file, formats=FORMATS)
    except UnidentifiedImageError as error:
        raise MediaError(f"cannot be opened: not a picture ({', '.join(FORMATS)})") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise MediaError(f"cannot be opened: {error}") from error
