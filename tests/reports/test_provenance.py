"""Where compared runs come from: a sentence that counts the pairs that differ, from the records."""

from types import SimpleNamespace

import pytest

from pipeline_src.reports.provenance import distinct, mixture

MODALITIES = {"none": ["audio"], "sum": ["audio", "visual"]}
CELLS = [
    SimpleNamespace(
        names={"dataset": "d", "recipe": "r", "fusion": fusion, "method": method},
        spec=SimpleNamespace(modalities=MODALITIES[fusion]),
    )
    for fusion, method in (("none", "audio-only"), ("sum", "joint"), ("sum", "ogm"))
]


def records(**changed):
    """Records of two seeds of each cell; `changed`: (part, key, value) of the runs of a method, by its name."""
    found = {}
    for cell in CELLS:
        for seed in (0, 1):
            names = cell.names
            machine = {"host": f"node{seed}", "slurm_job": str(seed), "cores": 4, "system": "Linux"}
            machine |= {"processor": "Xeon", "instruction_set": "AVX2", "device": "cpu"}
            record = {"machine": machine, "versions": {"git": f"{seed}", "counterpoise": "0.2", "torch": "2.1"}}
            if names["method"] in changed:
                part, key, value = changed[names["method"]]
                record[part][key] = value
            found[(*names.values(), seed)] = record
    return found


def test_equal_machines_are_said_to_be_equal_whatever_the_host():
    expected = "All 6 compared pairs of runs have the same processor, instruction set, GPU and versions."
    assert mixture(CELLS, records()) == expected
    assert mixture(CELLS, records(ogm=("machine", "host", "elsewhere"))) == expected


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"ogm": ("machine", "instruction_set", "AVX512")}, "4 of 6 compared pairs .* (instruction set in 4)"),
        ({"ogm": ("machine", "device", "NVIDIA H100")}, "4 of 6 compared pairs .* (device in 4)"),
        ({"joint": ("versions", "torch", "2.2")}, "4 of 6 compared pairs .* (torch in 4)"),
        ({"audio-only": ("machine", "processor", "EPYC")}, "4 of 6 compared pairs .* (processor in 4)"),
        (
            {"ogm": ("machine", "device", "NVIDIA H100"), "joint": ("versions", "torch", "2.2")},
            "6 of 6 compared pairs .* (device in 4 and torch in 4)",
        ),
    ],
)
def test_pairs_that_differ_are_counted_and_the_difference_is_named(changed, said):
    start, _, reason = said.partition(" .* ")
    found = mixture(CELLS, records(**changed))
    assert found.startswith(start) and reason in found
    assert found.count(". ") == 0, "one sentence"


def test_a_value_that_one_record_lacks_is_a_difference():
    found = records()
    del found["d", "r", "sum", "ogm", 1]["machine"]["instruction_set"]
    assert mixture(CELLS, found).startswith("2 of 6 compared pairs")


def test_where_nothing_is_compared_nothing_is_said():
    assert mixture(CELLS, {}) == ""
    assert mixture(CELLS[1:2], {key: one for key, one in records().items() if key[3] == "joint"}) == ""
    only = {key: one for key, one in records().items() if key[4] == 0 or key[3] == "joint"}
    assert mixture(CELLS, only).startswith("All 3 compared pairs"), "seeds are compared with their own alone"


def test_distinct_values_are_counted():
    found = distinct(records(), lambda record: record["versions"])
    assert [(value["git"], count) for value, count in found] == [("0", 3), ("1", 3)]
