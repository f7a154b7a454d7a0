METRICS = f"{places.EVALUATION}/metrics.json"


# A run is trained, if its record is not there, and evaluated in the same process: the imports take longer than an evaluation.
rule train:
    input:
        lambda w: inputs.of(w, "evaluate", (METRICS,)),
    output:
        METRICS,
    log:
        "logs/train/{dataset}/{recipe}/{fusion}/{method}-{fp}/seed{seed}-{evaluation}.log",
    benchmark:
        "logs/train/{dataset}/{recipe}/{fusion}/{method}-{fp}/seed{seed}-{evaluation}.tsv"
    group:
        "cells"
    conda:
        "../../envs/counterpoise.yaml"
    threads: asked.train.threads
    resources:
        **asked.train.job(),
    params:
        file=lambda w: params_file,
    shell:
        "python -m pipeline_src train --params={params.file:q} {output:q} 2>&1 | tee {log:q}"
