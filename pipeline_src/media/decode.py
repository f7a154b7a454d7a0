"""Opening and decoding media files with PyAV. Every failure is a MediaError with a short reason.

Reasons do not contain the path, which has its own column in the quarantine table. A truncated file must not pass for a
shorter clip, so its packets are read to the end and compared with the duration that the container states; reading
packets without decoding them costs little.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from pipeline_src.media.base import MediaError

# Packets may end this many seconds, and this fraction, before the stated duration: containers round and pad.
SLACK, SLACK_FRACTION = Fraction(1, 10), Fraction(2, 100)


@contextmanager
def opened(file: Path, kind: str) -> Iterator[tuple]:
    """Open `file` and yield (container, its first stream of `kind`), with `kind` "audio" or "video".

    Raises MediaError if the file is missing, empty, not media, cut short or without such a stream, and turns every
    error of PyAV inside the `with` block into one.
    """
    import av

    if not file.is_file():
        raise MediaError("missing file")
    if file.stat().st_size == 0:
        raise MediaError("empty file")
    try:
        _check_riff(file)
        container = av.open(str(file), metadata_errors="replace")
    except (av.FFmpegError, OSError) as error:
        raise MediaError(f"cannot be opened: {_reason(error)}") from error
    with container:
        stream = next((stream for stream in container.streams if stream.type == kind), None)
        if stream is None:
            raise MediaError(f"no {kind} stream")
        if stream.codec_context is None:
            raise MediaError("cannot be decoded: unknown codec")
        # The pipeline's parallelism is one process per shard; threads inside each would only compete.
        stream.codec_context.thread_count = 1
        try:
            yield container, stream
        except (av.FFmpegError, OSError, ValueError) as error:  # ValueError: the sound changes its layout midway
            raise MediaError(f"cannot be decoded: {_reason(error)}") from error


def duration(file: Path, kind: str) -> float:
    """Seconds that the container states for its first stream of `kind`. Raises MediaError as `opened` does."""
    with opened(file, kind) as (container, stream):
        return float(stated_duration(container, stream))


def stated_duration(container: Any, stream: Any) -> Fraction:
    """Seconds that the container states for the stream, or else for itself. Raises MediaError if neither."""
    if stream.duration:
        return stream.duration * stream.time_base
    if container.duration:
        return Fraction(container.duration, 1_000_000)
    raise MediaError("no duration stated")


def packets(container: Any, stream: Any) -> Iterator:
    """The packets of `stream` in the file's order, up to the first damaged one; the file is read to its end.

    Raises MediaError at the end if a packet was damaged or they end before the stated duration.
    """
    starts, ends, stream_end, damaged = [], [], Fraction(0), None
    # FLV states no duration for a packet; then the last frame counts as long as a frame is on average.
    rate = getattr(stream, "average_rate", None)
    for packet in container.demux():
        mine = packet.stream.index == stream.index
        if packet.is_corrupt:
            if mine and damaged is None:
                damaged = stream_end
            continue
        if packet.pts is not None:
            starts.append(packet.pts * packet.time_base)
            ends.append((packet.pts + (packet.duration or 0)) * packet.time_base)
            if mine:
                ends[-1] += 1 / rate if rate and not packet.duration else 0
                stream_end = max(stream_end, ends[-1])
        if mine and damaged is None:
            yield packet
    # The container states the duration of its longest stream; one without a duration may end earlier.
    if stream.duration:
        decoded = stream_end - (stream.start_time or 0) * stream.time_base
    else:
        decoded = max(ends, default=Fraction(0)) - min(starts, default=Fraction(0))
    stated = stated_duration(container, stream)
    if decoded < stated - SLACK - SLACK_FRACTION * stated:
        raise MediaError(f"truncated: decoded {float(decoded):.2f} s of {float(stated):.2f} s")
    if damaged is not None:
        raise MediaError(f"cannot be decoded: damaged packet at {float(damaged):.2f} s")


def decode(container: Any, stream: Any, take: Callable[[Any], bool]) -> None:
    """Pass the frames of `stream` to `take` in display order until it returns True; read the rest without decoding.

    Raises MediaError as `packets` does.
    """
    done = False
    for packet in packets(container, stream):
        done = done or any(take(frame) for frame in packet.decode())


def mono(file: Path, sample_rate: int, samples: int, part: tuple[float, float] | None = None) -> np.ndarray:
    """First samples of the sound at `sample_rate` Hz, channels averaged: float32 (n,), n <= `samples`; of its `part`
    from one time to another, in seconds, or of the whole.

    Raises MediaError if the file cannot be opened or decoded, ends before its stated duration or before the part, holds
    no sound or samples that are not finite.
    """
    first, last = (0, samples) if part is None else (round(time * sample_rate) for time in part)
    last = min(last, first + samples)
    import av

    pieces: list[np.ndarray] = []
    with opened(file, "audio") as (container, stream):
        resampler = av.AudioResampler(format="fltp", rate=sample_rate)

        def take(frame: Any) -> bool:
            # Averaged here: FFmpeg's own down-mix makes two equal channels 3 dB louder, and so clips them.
            pieces.extend(piece.to_ndarray().mean(axis=0) for piece in resampler.resample(frame))
            return sum(map(len, pieces)) >= last

        decode(container, stream, take)
        if not pieces:
            raise MediaError("cannot be decoded: no samples")
        take(None)  # what the resampler still holds
    wave = np.concatenate(pieces)[first:last]
    if not len(wave):
        raise MediaError(f"too short: expected sound after {first / sample_rate:g} s")
    bad = len(wave) - int(np.isfinite(wave).sum())
    if bad:  # clipping, or the floor under a logarithm, would hide them
        raise MediaError(f"{bad} of {len(wave)} samples are not finite")
    return wave


def _check_riff(file: Path) -> None:
    """AVI and WAV: compare the size in the header with the file's, as FFmpeg trusts the latter alone."""
    with file.open("rb") as handle:
        head = handle.read(8)
    stated = int.from_bytes(head[4:8], "little") + 8
    size = file.stat().st_size
    # Programs that write to a pipe leave 0 or a huge size; some leave out the last pad byte.
    if head[:4] == b"RIFF" and 8 < stated < 0x7FFF0000 and size < stated - 1:
        raise MediaError(f"truncated: {size:,} bytes of {stated:,}")


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
