"""Names of the files of a run: what the plan promises, and what the reader of a run's folder looks for."""

RECORD, HISTORY, WEIGHTS = "record.json", "metrics.jsonl", "weights.safetensors"
ATTEMPT, CHECKPOINT = "attempt.json", "checkpoint.safetensors"
METRICS, PREDICTIONS = "metrics.json", "predictions.parquet"
