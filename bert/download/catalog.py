"""The data sets that ``data/download.py`` knows: their files, where those are published, and what becomes of them.

Folders are NVIDIA's, below ``--output``. A checksum is given where one is published: SQuAD's and those of the weights'
files in NVIDIA's scripts, those of GLUE and XNLI in the records of TensorFlow Datasets and Hugging Face Datasets. To
add a data set, add a row::

    DATA_SETS["cola"].files[0].urls      # ("https://dl.fbaipublicfiles.com/glue/data/CoLA.zip",)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bert.download.archives import unpack
from bert.download.mrpc import build_mrpc


@dataclass(frozen=True)
class Remote:
    """One published file: its name on the disk and on mirrors, where it is, its checksum ("md5:...") and bytes."""

    name: str
    urls: tuple[str, ...]
    checksum: str | None = None
    size: int | None = None


@dataclass(frozen=True)
class DataSet:
    """Files that lie in ``folder``, or beside it where ``build`` makes its content from them.

    ``build`` takes the fetched files and an empty folder. ``members`` are the files that it must make, with the
    published checksum of each or None.
    """

    folder: str
    files: tuple[Remote, ...]
    build: Callable[[Sequence[Path], Path], None] | None = None
    members: Mapping[str, str | None] = field(default_factory=dict)


def unpack_all(archives: Sequence[Path], folder: Path) -> None:
    """Unpack archives into one folder."""
    for archive in archives:
        unpack(archive, folder)


# ---- SQuAD

SQUAD = (
    "https://rajpurkar.github.io/SQuAD-explorer",
    "https://raw.githubusercontent.com/rajpurkar/SQuAD-explorer/master",
)
CODALAB = "https://worksheets.codalab.org/rest/bundles"
BI_ATT_FLOW = "https://raw.githubusercontent.com/allenai/bi-att-flow/master"  # has a copy of the script, byte for byte


def _squad(name: str, md5: str, size: int) -> Remote:
    return Remote(name, tuple(f"{base}/dataset/{name}" for base in SQUAD), f"md5:{md5}", size)


SQUAD_SETS = {
    "squad-1.1": DataSet(
        "download/squad/v1.1",
        (
            _squad("train-v1.1.json", "981b29407e0affa3b1b156f72073b945", 30288272),
            _squad("dev-v1.1.json", "3e85deb501d4e538b6bc56f786231552", 4854279),
            Remote(
                "evaluate-v1.1.py",
                (
                    f"{CODALAB}/0xbcd57bee090b421c982906709c8c27e1/contents/blob/",
                    f"{BI_ATT_FLOW}/squad/evaluate-v1.1.py",
                ),
                "md5:afb04912d18ff20696f7f88eed49bea9",
            ),
        ),
    ),
    "squad-2.0": DataSet(
        "download/squad/v2.0",
        (
            _squad("train-v2.0.json", "62108c273c268d70893182d5cf8df740", 42123633),
            _squad("dev-v2.0.json", "246adae8b7002f8679c027697b0b7cf8", 4370528),
            Remote(
                "evaluate-v2.0.py",
                (f"{CODALAB}/0x6b567e1cf2e041ec80d7098f031c5c9e/contents/blob/",),
                "md5:ff23213bed5516ea4a6d9edb6cd7d627",
            ),
        ),
    ),
}

# ---- GLUE

FBAI = "https://dl.fbaipublicfiles.com"
SENTEVAL = f"{FBAI}/senteval/senteval_data"
THREE = ("train.tsv", "dev.tsv", "test.tsv")
MNLI_FILES = ("train.tsv", "dev_matched.tsv", "dev_mismatched.tsv", "test_matched.tsv", "test_mismatched.tsv")


def _glue(folder: str, archive: str, sha256: str, size: int, members: Sequence[str] = THREE) -> DataSet:
    remote = Remote(archive, (f"{FBAI}/glue/data/{archive}",), f"sha256:{sha256}", size)
    return DataSet(f"download/glue/{folder}", (remote,), unpack_all, dict.fromkeys(members))


GLUE_SETS = {
    "cola": _glue("CoLA", "CoLA.zip", "f212fcd832b8f7b435fb991f101abf89f96b933ab400603bf198960dfc32cbff", 376971),
    "sst-2": _glue("SST-2", "SST-2.zip", "d67e16fb55739c1b32cdce9877596db1c127dc322d93c082281f64057c16deaa", 7439277),
    "mrpc": DataSet(
        "download/glue/MRPC",
        (
            Remote(
                "msr_paraphrase_train.txt",
                (f"{SENTEVAL}/msr_paraphrase_train.txt",),
                "sha256:60a9b09084528f0673eedee2b69cb941920f0b8cd0eeccefc464a98768457f89",
                1047044,
            ),
            Remote(
                "msr_paraphrase_test.txt",
                (f"{SENTEVAL}/msr_paraphrase_test.txt",),
                "sha256:a04e271090879aaba6423d65b94950c089298587d9c084bf9cd7439bd785f784",
                441275,
            ),
            Remote(
                "mrpc_dev_ids.tsv",
                (f"{FBAI}/glue/data/mrpc_dev_ids.tsv",),
                "sha256:971d7767d81b997fd9060ade0ec23c4fc31cbb226a55d1bd4a1bac474eb81dc7",
                6222,
            ),
        ),
        build_mrpc,
        dict.fromkeys(THREE),
    ),
    "sts-b": _glue("STS-B", "STS-B.zip", "e60a6393de5a8b5b9bac5020a1554b54e3691f9d600b775bd131e613ac179c85", 802872),
    "qqp": _glue("QQP", "QQP-clean.zip", "40e7c862c04eb26ee04b67fd900e76c45c6ba8e6d8fab4f8f1f8072a1a3fbae0", 41696084),
    "mnli": _glue(
        "MNLI", "MNLI.zip", "e7c1d896d26ed6caf700110645df426cc2d8ebf02a5ab743d5a5c68ac1c83633", 312783507, MNLI_FILES
    ),
    "qnli": _glue("QNLI", "QNLIv2.zip", "e634e78627a29adaecd4f955359b22bf5e70f2cbd93b493f2d624138a0c0e5f5", 10627589),
    "rte": _glue("RTE", "RTE.zip", "6bf86de103ecd335f3441bd43574d23fef87ecc695977a63b82d5efb206556ee", 697150),
    "wnli": _glue("WNLI", "WNLI.zip", "ae0e8e4d16f4d46d4a0a566ec7ecceccfd3fbfaa4a7a4b4e02848c0f2561ac46", 28999),
    "ax": DataSet(
        "download/glue/AX",
        (
            Remote(
                "AX.tsv",
                (f"{FBAI}/glue/data/AX.tsv",),
                "sha256:0e13510b1bb14436ff7e2ee82338f0efb0133ecf2e73507a697dc210db3f05fd",
                222257,
            ),
        ),
    ),
}

XNLI = DataSet(
    "download/xnli",
    (
        Remote(
            "XNLI-1.0.zip",
            (f"{FBAI}/XNLI/XNLI-1.0.zip", "https://cims.nyu.edu/~sbowman/xnli/XNLI-1.0.zip"),
            "sha256:4ba1d5e1afdb7161f0f23c66dc787802ccfa8a25a3ddd3b165a35e50df346ab1",
            17865352,
        ),
        Remote(
            "XNLI-MT-1.0.zip",
            (f"{FBAI}/XNLI/XNLI-MT-1.0.zip",),
            "sha256:f732517ba2fb1d550e9f3c2aabaef6017c91ee2dcec90e878f138764d224db05",
            466098360,
        ),
    ),
    unpack_all,
    dict.fromkeys(("xnli.dev.tsv", "xnli.test.tsv", "multinli/multinli.train.zh.tsv")),
)

# ---- Google's pre-trained weights

WEIGHT_FILES = (
    "bert_config.json",
    "bert_model.ckpt.data-00000-of-00001",
    "bert_model.ckpt.index",
    "bert_model.ckpt.meta",
    "vocab.txt",
)
UNCASED_VOCAB = "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"
CASED_VOCAB = "eeaa9875b23b04b4c54ef759d03db9d1ba1554838f8fb26c5d96fa551df93d02"
UNCASED_LARGE_FOLDER = "download/google_pretrained_weights/uncased_L-24_H-1024_A-16"


def _weights(released: str, name: str, *sha256: str) -> DataSet:
    """``sha256`` of each of WEIGHT_FILES, in their order, or none."""
    remote = Remote(f"{name}.zip", (f"https://storage.googleapis.com/bert_models/{released}/{name}.zip",))
    members: dict[str, str | None] = dict.fromkeys(WEIGHT_FILES)
    if sha256:
        members = {file: f"sha256:{sum}" for file, sum in zip(WEIGHT_FILES, sha256, strict=True)}
    return DataSet(f"download/google_pretrained_weights/{name}", (remote,), unpack_all, members)


ALL_WEIGHTS = (
    _weights(
        "2018_10_18",
        "uncased_L-12_H-768_A-12",
        "7b4e5f53efbd058c67cda0aacfafb340113ea1b5797d9ce6ee411704ba21fcbc",
        "58580dc5e0bf0ae0d2efd51d0e8272b2f808857f0a43a88aaf7549da6d7a8a84",
        "04c1323086e2f1c5b7c0759d8d3e484afbb0ab45f51793daab9f647113a0117b",
        "dd5682170a10c3ea0280c2e9b9a45fee894eb62da649bbdea37b38b0ded5f60e",
        UNCASED_VOCAB,
    ),
    _weights(
        "2018_10_18",
        "uncased_L-24_H-1024_A-16",
        "bfa42236d269e2aeb3a6d30412a33d15dbe8ea597e2b01dc9518c63cc6efafcb",
        "bc6b3363e3be458c99ecf64b7f472d2b7c67534fd8f564c0556a678f90f4eea1",
        "68b52f2205ffc64dc627d1120cf399c1ef1cbc35ea5021d1afc889ffe2ce2093",
        "6fcce8ff7628f229a885a593625e3d5ff9687542d5ef128d9beb1b0c05edc4a1",
        UNCASED_VOCAB,
    ),
    _weights(
        "2018_10_18",
        "cased_L-12_H-768_A-12",
        "f11dfb757bea16339a33e1bf327b0aade6e57fd9c29dc6b84f7ddb20682f48bc",
        "734d5a1b68bf98d4e9cb6b6692725d00842a1937af73902e51776905d8f760ea",
        "517d6ef5c41fc2ca1f595276d6fccf5521810d57f5a74e32616151557790f7b1",
        "5f8a9771ff25dadd61582abb4e3a748215a10a6b55947cbb66d0f0ba1694be98",
        CASED_VOCAB,
    ),
    _weights(
        "2018_10_18",
        "cased_L-24_H-1024_A-16",
        "7adb2125c8225da495656c982fd1c5f64ba8f20ad020838571a3f8a954c2df57",
        "6ff33640f40d472f7a16af0c17b1179ca9dcc0373155fb05335b6a4dd1657ef0",
        "ef42a53f577fbe07381f4161b13c7cab4f4fc3b167cec6a9ae382c53d18049cf",
        "d2ddff3ed33b80091eac95171e94149736ea74eb645e575d942ec4a5e01a40a1",
        CASED_VOCAB,
    ),
    _weights(
        "2018_11_23",
        "multi_cased_L-12_H-768_A-12",
        "e76c3964bc14a8bb37a5530cdc802699d2f4a6fddfab0611e153aa2528f234f0",
        "55b8a2df41f69c60c5180e50a7c31b7cdf6238909390c4ddf05fbc0d37aa1ac5",
        "7d8509c2a62b4e300feb55f8e5f1eef41638f4998dd4d887736f42d4f6a34b37",
        "95e5f1997e8831f1c31e5cf530f1a2e99f121e9cd20887f2dce6fe9e3343e3fa",
        "fe0fda7c425b48c516fc8f160d594c8022a0808447475c1a7c6d6479763f310c",
    ),
    _weights(
        "2018_11_03",
        "multilingual_L-12_H-768_A-12",
        "49063bb061390211d2fdd108cada1ed86faa5f90b80c8f6fdddf406afa4c4624",
        "3cd83912ebeb0efe2abf35c9f1d5a515d8e80295e61c49b75c8853f756658429",
        "87c372c1a3b1dc7effaaa9103c80a81b3cbab04c7933ced224eec3b8ad2cc8e7",
        "27f504f34f02acaa6b0f60d65195ec3e3f9505ac14601c6a32b421d0c8413a29",
        "87b44292b452f6c05afa49b2e488e7eedf79ea4f4c39db6f2f4b37764228ef3f",
    ),
    _weights(
        "2018_11_03",
        "chinese_L-12_H-768_A-12",
        "7aaad0335058e2640bcb2c2e9a932b1cd9da200c46ea7b8957d54431f201c015",
        "756699356b78ad0ef1ca9ba6528297bcb3dd1aef5feadd31f4775d7c7fc989ba",
        "46315546e05ce62327b3e2cd1bed22836adcb2ff29735ec87721396edb21b82e",
        "c0f8d51e1ab986604bc2b25d6ec0af7fd21ff94cf67081996ec3f3bf5d823047",
        "45bbac6b341c319adc98a532532882e91a9cefc0329aa57bac9ae761c27b291c",
    ),
    _weights("2019_05_30", "wwm_uncased_L-24_H-1024_A-16"),
    _weights("2019_05_30", "wwm_cased_L-24_H-1024_A-16"),
)
WEIGHT_SETS = {Path(each.folder).name: each for each in ALL_WEIGHTS}

# The vocabulary that the scripts use by default, without the 1.2 GB of weights that lie beside it.
VOCAB = DataSet(
    UNCASED_LARGE_FOLDER,
    (
        Remote(
            "vocab.txt",
            (
                "https://huggingface.co/google-bert/bert-base-uncased/resolve/main/vocab.txt",
                "https://s3.amazonaws.com/models.huggingface.co/bert/bert-base-uncased-vocab.txt",
            ),
            f"sha256:{UNCASED_VOCAB}",
            231508,
        ),
    ),
)

DATA_SETS = {**SQUAD_SETS, **GLUE_SETS, "xnli": XNLI, **WEIGHT_SETS, "vocab": VOCAB}
GROUPS = {"squad": list(SQUAD_SETS), "glue": list(GLUE_SETS), "weights": list(WEIGHT_SETS)}
