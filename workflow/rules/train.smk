rule train:
    input:
        ancient(lambda w: plan.data[w.dataset].files),
        ancient(lambda w: plan.required(f"{places.RUN}/record.json".format(**dict(w.items())))),
    output:
        f"{places.RUN}/record.json",
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
