"""What extraction costs: frames of clips made here, against decoding every frame; and the size of every recipe."""

import statistics
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import numpy as np

from pipeline_src.media.base import extractors
from pipeline_src.media.decode import decode, opened
from pipeline_src.media.display import on_display
from pipeline_src.media.frames import Frames, FramesParams
from pipeline_src.study import config

ROUNDS, CLIPS = 5, 3
SECONDS, RATE, HEIGHT, WIDTH = 10, 25, 240, 320
KINDS = {  # name -> suffix, codec, encoder's options
    "mp4 H.264, key every 10 s": (".mp4", "libx264", {"g": "250", "x264-params": "scenecut=0"}),
    "mp4 H.264, key every 2 s": (".mp4", "libx264", {"g": "50", "x264-params": "scenecut=0"}),
    "flv Sorenson, key every 0.5 s": (".flv", "flv1", {"g": "12"}),
    "avi MPEG-4": (".avi", "mpeg4", {"g": "12"}),
}


def extract() -> None:
    """Clips per second and core, and the time over decoding every frame and over decoding up to the last one used."""
    print(f"{CLIPS} clips of {SECONDS} s, {WIDTH} x {HEIGHT}, {RATE} frames/s; one core; medians of {ROUNDS} rounds")
    print("decode: used / every frame, used / all up to the last used; extract: whole, with scaling to 224 x 224")
    print(f"{'clips':32}{'frames':>12}{'/ every':>9}{'/ up to':>9}{'clips/s':>9}{'kB kept':>9}")
    with tempfile.TemporaryDirectory() as folder:
        for name, (suffix, codec, options) in KINDS.items():
            files = [_clip(Path(folder) / f"{i}{suffix}", codec, options, seed=i) for i in range(CLIPS)]
            for how in ({"count": 1, "pick": "first", "fps": 1.0}, {"count": 3, "pick": "centers"}):
                _row(name, files, FramesParams(kind="frames", size=224, fit="squash", interpolation="bilinear", **how))
    print(f"\n{'recipe':32}{'kB a clip':>12}")
    for name in config.shipped_recipes():
        parts = (extractors[params.kind](params) for params in config.recipe(name).modalities.values())
        print(f"{name:32}{sum(part.row_bytes for part in parts) / 1000:12,.0f}")


def _row(name: str, files: list[Path], params: FramesParams) -> None:
    extractor = Frames(params)

    def times(seconds: Fraction, rate: Fraction) -> list[Fraction]:
        return params.times(seconds)

    sides = {
        "used": lambda file: on_display(file, times),
        "up to": lambda file: on_display(file, times, whole=True),
        "every": _every,
        "extract": extractor.extract,
    }
    spent = {side: [] for side in sides}
    for _ in range(ROUNDS):
        # Processor time, each clip in turn: what else the machine does slows them little, and alike.
        rounds = dict.fromkeys(sides, 0.0)
        for file in files:
            for side, call in sides.items():
                started = time.process_time()
                call(file)
                rounds[side] += time.process_time() - started
        for side, seconds in rounds.items():
            spent[side].append(seconds)
    ratios = [
        statistics.median(a / b for a, b in zip(spent["used"], spent[side], strict=True)) for side in ("every", "up to")
    ]
    speed = len(files) / statistics.median(spent["extract"])
    what = f"{params.count} {params.pick}"
    print(
        f"{name:32}{what:>12}{ratios[0]:9.2f}{ratios[1]:9.2f}{speed:9.1f}{extractor.row_bytes / 1000:9.0f}", flush=True
    )


def _every(file: Path) -> None:
    with opened(file, "video") as (container, stream):
        decode(container, stream, lambda frame: False)


def _clip(file: Path, codec: str, options: dict[str, str], seed: int) -> Path:
    """A texture that moves, with a little noise: as hard to encode as a video of these sizes usually is."""
    import av

    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (HEIGHT // 8, (WIDTH + SECONDS * RATE) // 8 + 1, 3), dtype=np.uint8)
    texture = coarse.repeat(8, axis=0).repeat(8, axis=1)
    with av.open(str(file), "w") as container:
        video = container.add_stream(codec, rate=RATE, pix_fmt="yuv420p", options=options)
        video.height, video.width, video.bit_rate = HEIGHT, WIDTH, 600_000
        for k in range(SECONDS * RATE):
            noise = rng.integers(0, 8, (HEIGHT, WIDTH, 1), dtype=np.uint8)
            pixels = np.ascontiguousarray(texture[:, k : k + WIDTH] // 2 + noise)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = k
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
    return file
