rule fetch:
    output:
        f"{places.RAW}/files.json",
    log:
        "logs/fetch/{dataset}-{fp}.log",
    benchmark:
        "benchmarks/fetch/{dataset}-{fp}.tsv"
    conda:
        "../../envs/counterpoise.yaml"
    threads: asked.fetch.threads
    resources:
        mem_mb=asked.fetch.mem_mb,
        runtime=asked.fetch.runtime,
        gpu=asked.fetch.gpu,
    params:
        file=params_file,
    shell:
        "python -m pipeline_src fetch --params {params.file} {output} 2>&1 | tee {log}"
