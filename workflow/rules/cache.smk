SHARD = (f"{places.SHARD}.arrow", f"{places.SHARD}.quarantine.parquet")
CACHE = (f"{places.CACHE}/{places.CACHE_FILE}", f"{places.CACHE}/quarantine.parquet")


rule extract:
    input:
        lambda w: inputs.of(w, "extract", SHARD),
    output:
        shard=SHARD[0],
        quarantine=SHARD[1],
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
        lambda w: inputs.of(w, "cache", CACHE),
    output:
        cache=CACHE[0],
        quarantine=CACHE[1],
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
