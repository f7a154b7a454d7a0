"""Media files that a generated dataset is made of: the same bytes on every machine with the same libraries."""

from pathlib import Path

import numpy as np

from pipeline_src.core.errors import UserError


def write_clip(file: Path, frames: np.ndarray, fps: int, wave: np.ndarray, rate: int) -> None:
    """Write grey frames uint8 (T, H, W) and sound float32 (n,) at `rate` Hz as H.264 and AAC.

    Raises UserError if this FFmpeg has no x264.
    """
    import av

    if "libx264" not in av.codecs_available:
        raise UserError("expected PyAV with libx264, but got PyAV without it; install PyAV's wheel (pip install av)")
    with av.open(str(file), "w", format="mp4") as container:
        height, width = frames.shape[1:]
        # crf 18 keeps the noise; one thread and no CPU-dependent shortcuts keep the bytes the same on every machine.
        options = {"preset": "veryfast", "crf": "18", "x264-params": "cpu-independent=1"}
        video = container.add_stream(
            "libx264", rate=fps, width=width, height=height, pix_fmt="yuv420p", options=options
        )
        video.codec_context.thread_count = 1
        sound = container.add_stream("aac", rate=rate, layout="mono", bit_rate=64_000)
        for index, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(picture, format="gray")
            frame.pts = index
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        block = av.AudioFrame.from_ndarray(wave[None], format="fltp", layout="mono")
        block.sample_rate, block.pts = rate, 0
        container.mux(sound.encode(block))
        container.mux(sound.encode(None))
