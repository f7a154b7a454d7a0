METRICS = f"{places.EVALUATION}/metrics.json"


rule evaluate:
    input:
        lambda w: inputs.of(w, "evaluate", (METRICS,)),
    output:
        METRICS,
    log:
        "logs/evaluate/{dataset}/{recipe}/{fusion}/{method}-{fp}/seed{seed}-{evaluation}.log",
    benchmark:
        "logs/evaluate/{dataset}/{recipe}/{fusion}/{method}-{fp}/seed{seed}-{evaluation}.tsv"
    group:
        "cells"
    conda:
        "../../envs/counterpoise.yaml"
    threads: asked.evaluate.threads
    resources:
        **asked.evaluate.job(),
    params:
        file=lambda w: params_file,
    shell:
        "python -m pipeline_src evaluate --params={params.file:q} {output:q} 2>&1 | tee {log:q}"
