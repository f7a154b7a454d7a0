METRICS = f"{places.EVALUATION}/metrics.json"
ALLOCATOR = " ".join(f"{name}=${{{{{name}-{value}}}}}" for name, value in serve.ALLOCATOR.items())
# What a run says goes to its log, and to the terminal if it fails; with COUNTERPOISE_LOG=INFO as it comes.
SAID = "2>&1 | tee {log:q}"
if not watch.epochs_shown():
    SAID = "> {log:q} 2>&1 || {{ status=$?; tail -n 3 {log:q} >&2; exit $status; }}"


# A run is trained, if its record is not there, and evaluated in the same process: the imports take longer than an evaluation.
rule train:
    input:
        lambda w: inputs.of(w, "evaluate", (METRICS,)),
    output:
        METRICS,
    log:
        "logs/train/{dataset}/{recipe}/{fusion}/{method}-{fp}/seed{seed}-{evaluation}.log",
    priority: lambda w: w.fusion != places.NO_FUSION  # the longer ones first, so that no core waits long for the last
    group:
        # Jobs of one group that need each other are one job of the queue: a tuned run's trials would be, with all its seeds.
        lambda w: "tuned" if w.method.endswith(f"-{places.TUNED}") else "cells"
    conda:
        "../../envs/counterpoise.yaml"
    threads: asked.train.threads
    resources:
        **asked.train.job(gpus),
    params:
        file=lambda w: params_file,
        usage="logs/train/{dataset}/{recipe}/{fusion}/{method}-{fp}/seed{seed}-{evaluation}.tsv",
    shell:
        f"{ALLOCATOR} python -m pipeline_src train --params={{params.file:q}} --usage={{params.usage:q}} {{output:q}} {SAID}"
