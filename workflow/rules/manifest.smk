MANIFEST = (f"{places.MANIFEST}/manifest.parquet", f"{places.MANIFEST}/quarantine.parquet")


rule manifest:
    input:
        lambda w: inputs.of(w, "manifest", MANIFEST),
    output:
        manifest=MANIFEST[0],
        quarantine=MANIFEST[1],
    log:
        "logs/manifest/{dataset}-{fp}.log",
    benchmark:
        "logs/manifest/{dataset}-{fp}.tsv"
    conda:
        "../../envs/counterpoise.yaml"
    threads: asked.manifest.threads
    resources:
        **asked.manifest.job(),
    params:
        file=lambda w: params_file,
    shell:
        "python -m pipeline_src manifest --params={params.file:q} {output.manifest:q} 2>&1 | tee {log:q}"
