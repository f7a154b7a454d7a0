"""What a record says of the machine."""

import pytest
import torch

from pipeline_src.training.machine import machine


@pytest.mark.parametrize("name", ["ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY", "MKL_CBWR"])
def test_a_variable_that_chooses_the_instruction_set_is_recorded(monkeypatch, name):
    before = machine(torch.device("cpu"), 1)["instruction_set"]
    monkeypatch.setenv(name, "AVX2_OR_SO")
    assert machine(torch.device("cpu"), 1)["instruction_set"] == f"{before} {name}=AVX2_OR_SO"
