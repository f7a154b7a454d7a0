rule aggregate:
    input:
        ancient([run.metrics for run in plan.runs]),
    output:
        index=plan.index,
        metrics="results/metrics.parquet",
        tables=expand("results/tables/accuracy.{kind}", kind=["csv", "md", "tex"]),
        report=report("results/report.html", caption="../report/report.rst", category="Results"),
    log:
        "logs/aggregate/tables.log",
    benchmark:
        "benchmarks/aggregate/tables.tsv"
    conda:
        "../../envs/counterpoise.yaml"
    threads: asked.aggregate.threads
    resources:
        mem_mb=asked.aggregate.mem_mb,
        runtime=asked.aggregate.runtime,
        gpu=asked.aggregate.gpu,
    params:
        file=params_file,
    shell:
        "python -m pipeline_src aggregate --params {params.file} {output.index} 2>&1 | tee {log}"
