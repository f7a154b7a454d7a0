RECORD = f"{places.RUN}/record.json"


rule train:
    input:
        lambda w: inputs.of(w, "train", (RECORD,)),
    output:
        RECORD,
    log:
        "logs/train/{dataset}/{recipe}/{fusion}/{method}-{fp}/seed{seed}.log",
    benchmark:
        "logs/train/{dataset}/{recipe}/{fusion}/{method}-{fp}/seed{seed}.tsv"
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
