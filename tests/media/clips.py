"""Small real media files with known content, and the ways in which real files are broken."""

from pathlib import Path

import av
import numpy as np

CODECS = {
    ".mp4": ("libx264", "aac"),
    ".mkv": ("libx264", "aac"),
    ".avi": ("mpeg4", "pcm_s16le"),
    ".flv": ("flv1", "libmp3lame"),
    ".webm": ("libvpx-vp9", "libopus"),
    ".wav": (None, "pcm_s16le"),
}


def greys(count: int, height: int = 48, width: int = 64) -> np.ndarray:
    """Frames uint8 (count, H, W, 3), frame k plain grey of level 20 + 16 k: at most 14 frames."""
    levels = 20 + 16 * np.arange(count, dtype=np.uint8)
    return np.broadcast_to(levels[:, None, None, None], (count, height, width, 3)).copy()


def tone(seconds: float, hertz: float, rate: int, amplitude: float = 0.5) -> np.ndarray:
    """Sine as float32 (1, n)."""
    return (amplitude * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)[None]


def write(file: Path, frames=None, fps=12, wave=None, rate=22_050, faststart=False, codec=None, options=None) -> Path:
    """Write frames uint8 (T, H, W, 3) and/or sound float32 (channels, n), interleaved, codecs by suffix or `codec`.

    `options` are the video encoder's.
    """
    video_codec, sound_codec = CODECS[file.suffix]
    with av.open(str(file), "w", options={"movflags": "faststart"} if faststart else {}) as container:
        if frames is not None:
            video = container.add_stream(codec or video_codec, rate=fps, pix_fmt="yuv420p", options=options or {})
            video.height, video.width = frames.shape[1:3]
        if wave is not None:
            layout = "mono" if len(wave) == 1 else "stereo"
            sound = container.add_stream(sound_codec, rate=rate, layout=layout)
        parts = 1 if frames is None else len(frames)
        for part in range(parts):
            if frames is not None:
                frame = av.VideoFrame.from_ndarray(frames[part], format="rgb24")
                frame.pts = part
                container.mux(video.encode(frame))
            if wave is not None:
                begin, end = (wave.shape[1] * (part + more) // parts for more in (0, 1))
                block = av.AudioFrame.from_ndarray(np.ascontiguousarray(wave[:, begin:end]), "fltp", layout)
                block.sample_rate, block.pts = rate, begin
                container.mux(sound.encode(block))
        for stream in container.streams:
            container.mux(stream.encode(None))
    return file


def cut(file: Path, share: float = 0.5) -> Path:
    """Keep the first `share` of the bytes, as a broken download does."""
    whole = file.read_bytes()
    file.write_bytes(whole[: int(len(whole) * share)])
    return file


def noise(seconds: float, rate: int = 22_050, seed: int = 0) -> np.ndarray:
    """White noise as float32 (1, n): a sound whose packets stay large."""
    return np.random.default_rng(seed).normal(0, 0.1, (1, round(seconds * rate))).astype(np.float32)


def broken(folder: Path, kind: str) -> Path:
    """File of 12 frames at 12 fps and 1 s of sound that is broken in the way of `kind`."""
    both = {"frames": greys(12), "wave": noise(1)}
    match kind:
        case "missing":
            return folder / "clip.mp4"
        case "folder":
            return folder
        case "empty":
            (folder / "clip.mp4").touch()
            return folder / "clip.mp4"
        case "garbage":
            (folder / "clip.mp4").write_bytes(np.random.default_rng(0).bytes(4096))
            return folder / "clip.mp4"
        case "mute":
            return write(folder / "clip.mp4", frames=greys(12))
        case "blind":
            return write(folder / "clip.mp4", wave=noise(1))
        case "moov first":
            return cut(write(folder / "clip.mp4", **both, faststart=True), 0.6)
        case "clipped":
            return cut(write(folder / "clip.mp4", **both, faststart=True), 0.97)
        case "moov last":
            return cut(write(folder / "clip.mp4", **both), 0.6)
        case "cut mkv":
            return cut(write(folder / "clip.mkv", **both), 0.6)
        case "cut avi":
            return cut(write(folder / "clip.avi", **both), 0.6)
        case "cut wav":
            return cut(write(folder / "clip.wav", wave=noise(1)), 0.6)
    raise ValueError(kind)
