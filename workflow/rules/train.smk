# Seeds that share a process are one job. `update` keeps Snakemake from deleting the finished ones when the job runs again.
for seeds in plan.seed_batches:
    batch = "-".join(map(str, seeds))

    rule:
        name:
            f"train_{batch}"
        input:
            ancient(lambda w: plan.data[w.dataset].cache_file),
        output:
            update(expand(f"{places.RUN}/record.json", seed=seeds, allow_missing=True)),
        log:
            f"logs/train/{{dataset}}/{{recipe}}/{{fusion}}/{{method}}-{{fp}}/seeds-{batch}.log",
        benchmark:
            f"logs/train/{{dataset}}/{{recipe}}/{{fusion}}/{{method}}-{{fp}}/seeds-{batch}.tsv"
        group:
            "cells"
        conda:
            "../../envs/counterpoise.yaml"
        threads: asked.train.threads
        resources:
            **asked.train.job(),
        params:
            file=params_file,
        shell:
            "python -m pipeline_src train --params {params.file} {output} 2>&1 | tee {log}"
