rule aggregate:
    input:
        [inputs.kept(run.metrics) for run in plan.runs],
    output:
        index=plan.index,
        metrics=plan.results / "metrics.parquet",
        tables=expand(plan.results / "tables/accuracy.{kind}", kind=["csv", "md", "tex"]),
        tuning=[plan.results / "tables" / name for name in places.TUNING if plan.params.tuning],
        history=plan.results / "history.csv",
        cells=[plan.results / "metrics" / f"{cell.place}.json" for cell in plan.rows],
        report=report(plan.results / "report.html", caption="../report/report.rst", category="Report"),
        figures=report(
            directory(plan.results / "figures"),
            patterns=["{what,[a-z]+}-{of}.svg"],
            caption="../report/figure.rst",
            category="Figures",
            subcategory="{what}",
            labels={"figure": "{what}", "of": "{of}"},
        ),
    log:
        f"logs/aggregate/{plan.results.name}.log",
    benchmark:
        f"logs/aggregate/{plan.results.name}.tsv"
    conda:
        "../../envs/counterpoise.yaml"
    threads: asked.aggregate.threads
    resources:
        **asked.aggregate.job(),
    params:
        file=lambda w: params_file,
    shell:
        "python -m pipeline_src aggregate --params={params.file:q} {output.index:q} 2>&1 | tee {log:q}"
