"""The frames of a video that are on display at given times; no more of the file is decoded than they need.

Where a container keeps every frame's time of display (MP4, Matroska, FLV), the packets alone say which frames those
are: decoding then begins at the last keyframe before each and leaves out, on the way, frames that no other one refers
to. Elsewhere, and wherever that does not give the very frame, every frame up to the last that is wanted is decoded.
Either way every packet is read, so a truncated file is noticed.
"""

import itertools
from bisect import bisect_right
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

from pipeline_src.media.base import MediaError
from pipeline_src.media.decode import decode, opened, packets, stated_duration

ROUNDING = Fraction(1, 1000)  # s; Matroska and FLV keep times to the millisecond, others exactly
TIMED = {"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "flv"}  # FFmpeg's names of the containers with times of display


def on_display(file: Path, times: Callable[[Fraction, Fraction], list[Fraction]], whole: bool = False) -> list:
    """For each time, the last frame that begins at or before it, to the millisecond; the first frame if none does.

    `times(duration, rate)` gives the times in seconds from the stream's start, in any order, from the stated duration
    in seconds and the mean frames per second. `whole` decodes every frame up to the last one wanted; the frames are the
    same. Raises MediaError if the file cannot be opened or decoded, or ends before its stated duration.
    """
    with opened(file, "video") as (container, stream):
        asked = times(stated_duration(container, stream), stream.average_rate or Fraction(25))
        wanted, spans = sorted(set(asked)), None
        if not whole and container.format.name in TIMED:
            spans = _spans(container, stream, wanted)
    frames = None if spans is None else _decode_spans(file, *spans)
    if frames is None:
        with opened(file, "video") as (container, stream):
            frames = _decode_all(container, stream, wanted)
    shown = dict(zip(wanted, frames, strict=True))
    return [shown[time] for time in asked]


def _spans(container: Any, stream: Any, wanted: list[Fraction]) -> tuple[list[int], list[tuple[int, int]]] | None:
    """The timestamp of each time's frame, and the spans of packet numbers [key, last] to decode for them.

    None if the packets do not say. A packet whose frame is shown before the keyframe that it follows refers back past
    that keyframe, so its span begins at an earlier one.
    """
    listed = [(p.pts, p.is_keyframe, p.is_discard) for p in packets(container, stream) if p.size]
    if not listed or any(pts is None for pts, _, _ in listed):
        return None
    number = {pts: i for i, (pts, _, unseen) in enumerate(listed) if not unseen}
    shown = sorted(number)
    if len(shown) != sum(not unseen for _, _, unseen in listed) or not shown:
        return None
    start = (stream.start_time or 0) * stream.time_base
    begins = [pts * stream.time_base - start for pts in shown]
    chosen = [shown[max(0, bisect_right(begins, time + ROUNDING) - 1)] for time in wanted]
    keys = [i for i, (_, key, _) in enumerate(listed) if key]
    spans: dict[int, int] = {}
    for pts in set(chosen):
        key = max((k for k in keys if k <= number[pts] and listed[k][0] <= pts), default=None)
        if key is None:
            return None
        spans[key] = max(spans.get(key, 0), number[pts])
    return chosen, sorted(spans.items())


def _decode_spans(file: Path, chosen: list[int], spans: list[tuple[int, int]]) -> list | None:
    """The frames with the chosen timestamps, or None if the decoder does not give all of them undamaged."""
    import av

    wanted, left = set(chosen), list(spans)
    decoded: dict[int, Any] = {}
    with opened(file, "video") as (container, stream):
        decoder = stream.codec_context
        try:
            for number, packet in enumerate(p for p in container.demux(stream) if p.size):
                key, last = left[0]
                if number < key:
                    continue
                # A frame that no other refers to can be skipped.
                decoder.skip_frame = "DEFAULT" if packet.pts in wanted else "NONREF"
                frames = packet.decode()
                if number == last:
                    frames += decoder.decode(None)
                    decoder.flush_buffers()
                    left.pop(0)
                decoded.update((f.pts, f) for f in frames if f.pts in wanted and not f.is_corrupt)
                if not left:
                    break
        except (av.FFmpegError, ValueError):
            return None
    return [decoded[pts] for pts in chosen] if decoded.keys() == wanted else None


def _decode_all(container: Any, stream: Any, wanted: list[Fraction]) -> list:
    chosen: list[int] = []
    last = None
    start = (stream.start_time or 0) * stream.time_base
    # AVI keeps no times of display, and with B-frames FFmpeg guesses them wrong; its frames come at one even rate.
    even = container.format.name == "avi" and stream.average_rate
    number = itertools.count()

    def take(frame: Any) -> bool:
        nonlocal last
        if frame.pts is None and not even:
            raise MediaError("cannot be decoded: frame without a time")
        begin = next(number) / even if even else frame.pts * frame.time_base - start
        while last and len(chosen) < len(wanted) and begin > wanted[len(chosen)] + ROUNDING:
            chosen.append(last)
        last = frame
        return len(chosen) == len(wanted)

    decode(container, stream, take)
    if last is None:
        raise MediaError("cannot be decoded: no frames")
    return chosen + [last] * (len(wanted) - len(chosen))  # the last frame stays on display until the end
