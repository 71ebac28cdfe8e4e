"""Layers of BERT as features for other programs: from lines of text to a vector per token or per line.

::

    extractor = Extractor(model, tokenizer, precision, layer_indexes("-1,-2", depth=12), pooling="mean")
    write_features(config, extractor, read_lines("lines.txt"))
"""

from bert.features.extract import Extractor, Features, FeaturesConfig, encode_lines, layer_indexes, read_lines
from bert.features.files import FORMATS, write_features, writer_of

__all__ = [
    "FORMATS",
    "Extractor",
    "Features",
    "FeaturesConfig",
    "encode_lines",
    "layer_indexes",
    "read_lines",
    "write_features",
    "writer_of",
]
