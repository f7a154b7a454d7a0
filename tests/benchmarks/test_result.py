"""The README's table says what the files of docs/results say."""

from pathlib import Path

import pandas as pd
import pytest

from benchmarks import result

ROOT = Path(__file__).parents[2]
MEANS = {"audio-only": 0.85, "visual-only": 0.5, "joint": 0.8, "better": 0.9, "other": 0.8}
SEEDS = range(4)


def write(folder: Path, name: str, seeds: range = SEEDS, **means: float) -> None:
    """Accuracies of each seed: spread 1 point, alike for all methods but for a tenth of a point."""
    rows = []
    for i, (method, mean) in enumerate((MEANS | means).items()):
        fusion = "none" if method.endswith("-only") else "concat"
        modalities = [method.removesuffix("-only")] if fusion == "none" else ["audio", "visual"]
        for seed in seeds:
            value = mean + 0.01 * (seed - 1.5) + 0.001 * ((seed * (i + 1)) % 3)
            names = ("d", "r", fusion, method, seed, "test")
            rows.append((*names, "fused", "accuracy", value))
            rows += [(*names, m, "accuracy_probe", value - 0.1 * (fusion != "none")) for m in modalities]
    pd.DataFrame(rows, columns=result.COLUMNS).to_csv(folder / f"{name}.csv", index=False)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(result, "STUDIED", ROOT / "params.yaml")
    monkeypatch.setattr(result, "FOLDER", tmp_path)
    kept = tmp_path / "more.yaml"
    kept.write_text(f"extends: {ROOT / 'params.yaml'}\nstudy: {{seeds: {list(SEEDS)}}}\n", encoding="utf-8")
    monkeypatch.setattr(result, "MORE_SEEDS", kept)
    elsewhere = tmp_path / "elsewhere.yaml"
    elsewhere.write_text(f"extends: {ROOT / 'params.yaml'}\nstudy: {{seeds: [0, 9]}}\n", encoding="utf-8")
    monkeypatch.setattr(result, "ELSEWHERE", (elsewhere,))
    for name in result.MORE:
        write(tmp_path, name)
    return tmp_path


def test_both_processors_and_the_regime_stand_in_the_section(folder):
    write(folder, "default")
    write(folder, "default-avx2", joint=0.82, other=0.82)
    text = result.section()
    line = next(line for line in text.splitlines() if line.startswith("| better"))
    assert "**+10." in line and "**+8." in line and text.count("**") == 4
    assert "corrected for 2 comparisons" in text and "over 4 seeds" in text
    assert "- Joint training less `audio-only`: \u22125." in text and "(AVX2: \u22123." in text
    assert "- Its encoders less those trained alone" in text and "audio \u221215." in text
    assert "- Every verdict is the same on both. Smallest detectable difference: with 4 seeds" in text


def test_a_verdict_that_changes_with_the_processor_is_said(folder):
    write(folder, "default")
    write(folder, "default-avx2", better=0.7)
    assert "not the same on both for better (a gain; AVX2: a loss)." in result.section()


def test_the_seeds_kept_for_it_decide_with_the_correction_of_the_study(folder):
    write(folder, "default")
    write(folder, "default-avx2", better=0.7)
    text = result.section()
    assert "With 4 new seeds and the same correction, these are not all significant: audio-only +5." in text
    narrow = text[text.index("better +10.") :].split("]")[0]
    write(folder, result.MORE[0], better=0.85)
    assert "better +5." in result.section()
    assert narrow.split("[")[1] == text[text.index("**+10.") :].split("[")[1].split("]")[0], "two comparisons in both"


def test_all_seeds_are_shown_beside_those_that_decide(folder):
    write(folder, "default")
    write(folder, "default-avx2", better=0.7)
    for name in result.MORE:
        write(folder, name, range(8))
    frame = pd.read_csv(folder / f"{result.MORE[0]}.csv")
    fused = frame[frame.modality == "fused"].pivot(index="method", columns="seed").value
    gain = 100 * (fused.loc["better"] - fused.loc["joint"])
    few, rest = result.section().split(" With the 3 of them that no other study had: ")
    fresh, every = rest.split("With all 8 seeds: ")
    for text, seeds in ((few, SEEDS), (fresh, range(1, 4)), (every, range(8))):
        assert f"better +{gain[list(seeds)].mean():.1f} [" in text


def test_a_new_look_keeps_the_seeds_of_those_before(folder, capsys, monkeypatch):
    for name in ("default", "default-avx2"):
        write(folder, name)
    name, study = result.MORE[0], folder / "study"
    study.mkdir()
    monkeypatch.setattr(result, "STUDY", str(study))
    write(study, "metrics", range(2, 6), better=0.7)
    pd.read_csv(study / "metrics.csv").to_parquet(study / "metrics.parquet")
    result.result(name)
    frame = pd.read_csv(folder / f"{name}.csv")
    better = frame[(frame.method == "better") & (frame.modality == "fused")].set_index("seed").value
    assert sorted(better.index) == list(range(6)) and better[1] > 0.85 > 0.75 > better[2]
    assert "With 4 new seeds" not in capsys.readouterr().out, "no verdict differs"


def test_the_readme_has_the_section(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert result.section() in (ROOT / "README.md").read_text(encoding="utf-8")
