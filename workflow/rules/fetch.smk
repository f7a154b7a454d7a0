rule fetch:
    output:
        f"{places.RAW}/files.json",
    log:
        "logs/fetch/{dataset}-{fp}.log",
    benchmark:
        "logs/fetch/{dataset}-{fp}.tsv"
    conda:
        "../../envs/counterpoise.yaml"
    threads: asked.fetch.threads
    resources:
        **asked.fetch.job(),
    params:
        file=lambda w: params_file,
    shell:
        "python -m pipeline_src fetch --params={params.file:q} {output:q} 2>&1 | tee {log:q}"
