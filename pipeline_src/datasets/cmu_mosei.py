"""CMU-MOSEI: about 23,000 sentences of 1,000 YouTube speakers, as features of voice, face and words (Zadeh et al.,
2018).
"""

from typing import ClassVar

from pipeline_src.datasets.base import datasets
from pipeline_src.datasets.sentiment import Sentiment


@datasets.register("cmu_mosei")
class CMUMosei(Sentiment):
    title = "CMU-MOSEI"
    homepage = "https://github.com/pliang279/MultiBench (affective computing)"
    citation = "Zadeh et al., Multimodal Language Analysis in the Wild, ACL 2018"
    sizes: ClassVar = {"train": 16_326, "val": 1_871, "test": 4_659}
    layout = """
mosei_senti_data.pkl    or the name in datasets.<name>.file (mosei_senti_data_noalign.pkl); from the address above. It
                        is read without being run.
"""
