rule extract:
    input:
        ancient(lambda w: plan.data[w.dataset].manifest / "manifest.parquet"),
    output:
        shard=f"{places.SHARD}.arrow",
        quarantine=f"{places.SHARD}.quarantine.parquet",
    log:
        "logs/extract/{dataset}/{recipe}-{fp}/{shard}.log",
    benchmark:
        "logs/extract/{dataset}/{recipe}-{fp}/{shard}.tsv"
    conda:
        "../../envs/counterpoise.yaml"
    threads: asked.extract.threads
    resources:
        **asked.extract.job(),
    params:
        file=lambda w: params_file,
    shell:
        "python -m pipeline_src extract --params={params.file:q} {output.shard:q} 2>&1 | tee {log:q}"


rule cache:
    input:
        ancient(lambda w: [f"{shard}.arrow" for shard in plan.data[w.dataset].shards]),
    output:
        cache=f"{places.CACHE}/{places.CACHE_FILE}",
        quarantine=f"{places.CACHE}/quarantine.parquet",
    log:
        "logs/cache/{dataset}/{recipe}-{fp}.log",
    benchmark:
        "logs/cache/{dataset}/{recipe}-{fp}.tsv"
    conda:
        "../../envs/counterpoise.yaml"
    threads: asked.cache.threads
    resources:
        **asked.cache.job(),
    params:
        file=lambda w: params_file,
    shell:
        "python -m pipeline_src cache --params={params.file:q} {output.cache:q} 2>&1 | tee {log:q}"
