"""Equal tuning through the real Snakemake: killed among the trials, gone on with, finished, and no work left."""

import json
import time

from tests.workflow.small import jobs, kill, snakemake, start, write_params

STUDY = {"study": {"methods": ["joint"], "unimodal": False, "seeds": [0]}}
TUNING = {"trials": 2, "seeds": [5], "spaces": {"all": {"training.lr": [0.01, 0.1]}}}


def records(folder) -> list[dict]:
    return [json.loads(file.read_text()) for file in folder.glob("results/runs/*/*/concat/*/seed*/record.json")]


def test_killed_among_the_trials_and_finished(tmp_path):
    write_params(tmp_path, STUDY)
    (tmp_path / "params.yaml").rename(tmp_path / "smaller.yaml")
    write_params(tmp_path, STUDY, {"tuning": TUNING})
    process = start(tmp_path)
    while process.poll() is None and not any(record["seed"] == 5 for record in records(tmp_path)):
        time.sleep(0.2)
    assert process.poll() is None
    kill(process)
    done = len(list(tmp_path.glob("results/runs/**/metrics.json")))
    assert done < 4 and not any("tuning" in record for record in records(tmp_path))

    assert jobs(snakemake(tmp_path)) == {"train": 4 - done, "aggregate": 1, "all": 1}
    made = records(tmp_path)
    assert sorted((record["method"], record["seed"]) for record in made) == [
        ("joint", 0),
        ("joint", 5),
        ("joint", 5),
        ("joint-tuned", 0),
    ]
    (tuned,) = [record for record in made if record["method"] == "joint-tuned"]
    trials = {r["parameters"]["training"]["lr"]: r["selected"]["val_accuracy"] for r in made if r["seed"] == 5}
    outcome = tuned["tuning"]
    assert {trial["values"]["training.lr"]: trial["mean"] for trial in outcome["trials"]} == trials
    best = max(trials.values())
    assert outcome["values"]["training.lr"] == min(lr for lr in trials if trials[lr] == best)  # the first drawn
    assert tuned["parameters"]["training"]["lr"] == outcome["values"]["training.lr"]
    tables = {path.name for path in tmp_path.glob("results/studies/params/tables/*.csv")}
    assert tables == {"accuracy.csv", "tuned.csv", "trials.csv"}

    assert "Nothing to be done" in snakemake(tmp_path, "-n")
    # A study without tuning finds its runs; one that lost a trial makes that, and the tables, and no tuned run.
    assert jobs(snakemake(tmp_path, "-n", "--config", "params=smaller.yaml")) == {"aggregate": 1, "all": 1}
    next(tmp_path.glob("results/runs/*/*/concat/joint-*/seed5/record.json")).unlink()
    assert jobs(snakemake(tmp_path, "-n")) == {"train": 1, "aggregate": 1, "all": 1}
