"""CMU-MOSI: 2,199 opinions of 93 YouTube speakers, as features of voice, face and words (Zadeh et al., 2016)."""

from typing import ClassVar

from pipeline_src.datasets.base import datasets
from pipeline_src.datasets.sentiment import Sentiment


@datasets.register("cmu_mosi")
class CMUMosi(Sentiment):
    title = "CMU-MOSI"
    homepage = "https://github.com/pliang279/MultiBench (affective computing)"
    citation = "Zadeh et al., Multimodal Sentiment Intensity Analysis in Videos, IEEE Intelligent Systems 31(6), 2016"
    sizes: ClassVar = {"train": 1_284, "val": 229, "test": 686}
    layout = """
mosi_data.pkl    or the name in datasets.<name>.file; from the address above. It is read without being run.
"""
