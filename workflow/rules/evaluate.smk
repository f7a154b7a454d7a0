for seeds in plan.seed_batches:
    batch = "-".join(map(str, seeds))

    rule:
        name:
            f"evaluate_{batch}"
        input:
            ancient(expand(f"{places.RUN}/record.json", seed=seeds, allow_missing=True)),
        output:
            metrics=update(expand(f"{places.EVALUATION}/metrics.json", seed=seeds, allow_missing=True)),
            predictions=update(expand(f"{places.EVALUATION}/predictions.parquet", seed=seeds, allow_missing=True)),
        log:
            f"logs/evaluate/{{dataset}}/{{recipe}}/{{fusion}}/{{method}}-{{fp}}/seeds-{batch}-{{evaluation}}.log",
        benchmark:
            f"logs/evaluate/{{dataset}}/{{recipe}}/{{fusion}}/{{method}}-{{fp}}/seeds-{batch}-{{evaluation}}.tsv"
        group:
            "cells"
        conda:
            "../../envs/counterpoise.yaml"
        threads: asked.evaluate.threads
        resources:
            **asked.evaluate.job(),
        params:
            file=params_file,
        shell:
            "python -m pipeline_src evaluate --params {params.file} {output.metrics} 2>&1 | tee {log}"
