"""The fetch stage: raw media, made or downloaded once, with an index that tells later if a file was touched."""

from pipeline_src import files


def fetch(data) -> None:
    """Fill the raw folder of a data set of the plan; it appears whole, with files.json, or not at all."""
    with files.whole(data.raw) as folder:
        folder.mkdir(parents=True)
        data.dataset.fetch(folder)
        files.write_json(folder / files.FILES, files.scan(folder, data.seen))
