"""From views of runs to MLflow's runs: what is missing there is added, what is there is left alone.

However often and by however many processes it is done, a run of the grid is one MLflow run:
- it is found again by its tags `address` (the run's folder) and `attempt` (its first epoch);
- on one host, looking and writing stand under a lock; from several hosts two may be made, of which all keep the one
  with the smaller id and delete the other;
- an epoch's values have a time that follows from the run's files alone, and MLflow stores equal points once.
A run that was trained again from scratch has another attempt, and so an MLflow run of its own, because MLflow can
change no value; the earlier one gets the tag kind = superseded.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from typing import TYPE_CHECKING, Any

from pipeline_src.tracking.store import Store
from pipeline_src.tracking.view import FINISHED, RUNNING, View

if TYPE_CHECKING:
    import mlflow.entities

    from pipeline_src.study.plan import Plan

NEW, UPDATED, SAME = "new", "brought up to date", "already right"
MIRRORED = "mirrored"  # tag: digest of what a finished MLflow run was made from
BATCH, FEW = 1000, 100  # metrics, and parameters or tags, that MLflow takes at once
SUPERSEDED = "superseded"
SOURCE = {"mlflow.source.name": "python -m pipeline_src track", "mlflow.source.type": "PROJECT"}
MARK = "train/seconds"  # every epoch has it


class Mirror:
    """Brings views and a study's results into an open store. Raises what MLflow raises."""

    def __init__(self, store: Store):
        self.store, self.client = store, store.client

    def everything(self) -> dict[str, list]:
        """All MLflow runs of the experiment by address: one query per thousand."""
        found: dict[str, list] = {}
        token = None
        while True:
            page = self.client.search_runs([self.store.experiment], max_results=1000, page_token=token)
            for run in page:
                found.setdefault(run.data.tags.get("address", ""), []).append(run)
            token = page.token
            if not token:
                return found

    def at(self, address: str) -> list:
        """The MLflow runs of an address."""
        return self.client.search_runs([self.store.experiment], f"tags.address = '{address}'")

    def push(self, view: View, known: list | None = None) -> str:
        """Bring one run up to date; NEW, UPDATED or SAME. `known` is what `at` gave a moment ago."""
        from mlflow.exceptions import MlflowException

        if self._bring(view, self.at(view.address) if known is None else known, write=False) == SAME:
            return SAME
        with self.store.alone():
            try:
                return self._bring(view, self.at(view.address))
            except MlflowException as error:
                if error.error_code in ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE"):
                    raise
                return self._bring(view, self.at(view.address))  # another host wrote the same, or deleted a double

    def untag(self, known: dict[str, list], tag: str, addresses: set[str]) -> None:
        """Remove a tag from the `known` runs (by address) that are at none of the `addresses`."""
        from mlflow.exceptions import MlflowException

        for address, runs in known.items():
            for run in runs:
                if address not in addresses and tag in run.data.tags:
                    with contextlib.suppress(MlflowException):  # somebody else did, or deleted the run
                        self.client.delete_tag(run.info.run_id, tag)

    def _bring(self, view: View, siblings: list, write: bool = True) -> str:
        same = self._own(view, siblings)
        if not same and write:
            self._create(view, {**view.tags, **self._attempt(view)})
            siblings = self.at(view.address)
            self._bring(view, siblings)
            return NEW
        if not same:
            return NEW
        run, *doubles = same
        others = [one for one in siblings if one not in doubles]
        *earlier, latest = sorted(others, key=lambda one: (one.info.start_time, one.info.run_id))
        earlier = [one for one in earlier if one.data.tags.get("kind") != SUPERSEDED]
        if run is not latest:
            view.tags["kind"] = SUPERSEDED
        lacks = self._lacks(view, run)
        if not (doubles or earlier or any(lacks.values())):
            return SAME
        if write:
            for one in doubles:
                self.client.delete_run(one.info.run_id)
            for one in earlier:
                self.client.set_tag(one.info.run_id, "kind", SUPERSEDED)
            self._fill(view, run, **lacks)
        return UPDATED

    @staticmethod
    def _own(view: View, siblings: list) -> list:
        """The view's own MLflow run among those of its address; more than one, if several hosts made it."""
        same = [run for run in siblings if run.data.tags.get("attempt") == view.attempt]
        if not same and view.attempt:  # it was made before its first epoch ended
            same = [run for run in siblings if "attempt" not in run.data.tags]
        return sorted(same, key=lambda run: run.info.run_id)

    def _create(self, view: View, tags: dict[str, str]) -> None:
        self.client.create_run(self.store.experiment, view.started, {**SOURCE, **tags}, view.name)

    @staticmethod
    def _attempt(view: View) -> dict[str, str]:
        return {"attempt": view.attempt} if view.attempt else {}

    def _lacks(self, view: View, run: mlflow.entities.Run) -> dict[str, Any]:
        """What the MLflow run still lacks; empty or False where it is up to date."""
        have = run.data
        complete = view.digest is None or have.tags.get(MIRRORED) == view.digest
        return {
            "params": {k: v for k, v in view.params.items() if k not in have.params},
            "tags": {k: v for k, v in (view.tags | self._attempt(view)).items() if have.tags.get(k) != v},
            "epochs": [] if view.digest and complete else self._missing(view, run),
            "status": view.status != run.info.status,
            "inputs": bool(view.dataset) and not (run.inputs and run.inputs.dataset_inputs),
            "final": not complete,
        }

    def _fill(
        self,
        view: View,
        run: mlflow.entities.Run,
        params: dict,
        tags: dict,
        epochs: list,
        status: bool,
        inputs: bool,
        final: bool,
    ) -> None:
        run_id = run.info.run_id
        self._log(run_id, params, tags, [*epochs, self._final(view)] if final else epochs)
        if inputs:
            self.client.log_inputs(run_id, datasets=[_dataset(view)])
        if status and view.status == RUNNING:
            self.client.update_run(run_id, status=RUNNING)
        elif status:
            self.client.set_terminated(run_id, view.status, view.ended)
        if final:
            for file in view.artifacts:
                self.store.upload(run, file)
            self.client.set_tag(run_id, MIRRORED, view.digest)  # last: all of it is there

    def _missing(self, view: View, run: mlflow.entities.Run) -> list[list]:
        """The metrics of the epochs that are not there, an epoch each."""
        from mlflow.entities import Metric

        there = {m.step for m in self.client.get_metric_history(run.info.run_id, MARK)} if run.data.metrics else set()
        start = run.info.start_time  # not the view's, which moves when the run is resumed
        return [
            [Metric(name, value, start + int(1000 * clock), epoch) for name, value in metrics.items()]
            for epoch, clock, metrics in view.epochs
            if epoch not in there
        ]

    @staticmethod
    def _final(view: View) -> list:
        from mlflow.entities import Metric

        return [Metric(name, value, view.final_time, 0) for name, value in view.final.items()]

    def _log(self, run_id: str, params: dict, tags: dict, groups: list[list]) -> None:
        """In as few calls as MLflow allows; the metrics of an epoch stay in one call, so in one transaction."""
        from mlflow.entities import Param, RunTag

        pending: list = []
        for metrics in groups:
            if len(pending) + len(metrics) > BATCH:
                self.client.log_batch(run_id, metrics=pending)
                pending = []
            pending = pending + metrics
        if pending:
            self.client.log_batch(run_id, metrics=pending)
        texts = [Param(k, v) for k, v in params.items()]
        for i in range(0, len(texts), FEW):
            self.client.log_batch(run_id, params=texts[i : i + FEW])
        marks = [RunTag(k, v) for k, v in tags.items()]
        for i in range(0, len(marks), FEW):
            self.client.log_batch(run_id, tags=marks[i : i + FEW])

    def summary(self, plan: Plan) -> str:
        """Bring the results of a complete study (tables, figures, report, metrics) to a run of their own."""
        results = sorted(
            path
            for pattern in ("*.html", "*.parquet", "*.json", "*.csv", "tables/*", "figures/*")
            for path in plan.results.glob(pattern)
            if path.is_file() and not path.name.startswith(".")  # Snakemake's own marks
        )
        content = hashlib.sha256()
        for path in results:
            content.update(path.name.encode() + path.read_bytes())
        address, digest = plan.results.as_posix(), content.hexdigest()[:16]
        time = int(plan.index.stat().st_mtime * 1000)
        with self.store.alone():
            found, made = self.at(address), False
            if not found:
                tags = {**SOURCE, "kind": "summary", "address": address, "study": str(plan.file)}
                name = f"summary of {address}"
                found, made = [self.client.create_run(self.store.experiment, time, tags, name)], True
        run = min(found, key=lambda one: one.info.run_id)
        if run.data.tags.get(MIRRORED) == digest:
            return SAME
        for path in results:
            folder = path.parent.relative_to(plan.results).as_posix()
            self.store.upload(run, path, "" if folder == "." else folder)
        table = plan.results / "tables" / "accuracy.md"
        if table.exists():  # the UI shows it on the run's first page
            self.client.set_tag(run.info.run_id, "mlflow.note.content", table.read_text(encoding="utf-8")[:7000])
        self.client.set_terminated(run.info.run_id, FINISHED, time)
        self.client.set_tag(run.info.run_id, MIRRORED, digest)
        return NEW if made else UPDATED


def _dataset(view: View) -> mlflow.entities.DatasetInput:
    """The feature cache as an MLflow dataset: a digest of its content, the shape of each modality, sizes of splits."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    found = view.dataset
    schema = [
        {"name": m, "type": "tensor", "tensor-spec": {"dtype": one["dtype"], "shape": [-1, *one["shape"]]}}
        for m, one in found["modalities"].items()
    ]
    dataset = Dataset(
        name=f"{found['dataset']}, {found['recipe']}",
        digest=found["sha256"][:36],  # all that MLflow stores; the whole is the tag `data`
        source_type="local",
        source=json.dumps({"uri": found["folder"]}),
        schema=json.dumps({"mlflow_tensorspec": {"features": json.dumps(schema), "targets": None}}),
        profile=json.dumps({**found["splits"], "classes": len(found["classes"]), "quarantined": found["quarantined"]}),
    )
    return DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])
