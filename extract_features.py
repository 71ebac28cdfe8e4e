"""Write the activations of BERT's layers for each token of each line of a text, or one vector for each line.

    python extract_features.py --input_file lines.txt --output_file features.jsonl --init_checkpoint ckpt_8601.pt \\
        --layers=-1,-2 --max_seq_length 128 --batch_size 32
    python extract_features.py --input_file lines.txt --output_file vectors.parquet --pooling mean ...

A line is one example, "text_a ||| text_b" a pair. A checkpoint of this suite holds its configuration and vocabulary;
any other needs --config_file and --vocab_file. Memory does not grow with the file.
"""

from dataclasses import dataclass
from pathlib import Path

from bert.checkpoint.open_model import InferenceConfig, load_start
from bert.config import run_command
from bert.distributed import join_world
from bert.errors import UsageError
from bert.features.extract import Extractor, FeaturesConfig, layer_indexes, read_lines
from bert.features.files import write_features, writer_of
from bert.log import progress
from bert.model.bert import BertModel


@dataclass
class Config:
    features: FeaturesConfig
    inference: InferenceConfig


def main(config: Config) -> None:
    features, inference = config.features, config.inference
    writer_of(features.output_file, features.output_format)  # refuse a wrong suffix before loading the model
    if Path(features.output_file).resolve() == Path(features.input_file).resolve():
        raise UsageError(f"--output_file {features.output_file}: is --input_file")
    lines = read_lines(features.input_file)
    with join_world(inference.place()) as world:
        if world.size > 1:
            raise UsageError(f"extract_features.py runs in one process; {world.size} were started")
        precision = inference.number_format(world.device)
        start = load_start(inference.model, inference.init_checkpoint, features.max_seq_length)
        layers = layer_indexes(features.layers, start.model_config.num_hidden_layers, features.pooling)
        model = BertModel(start.model_config, inference.model.attention)
        start.load_into(model, () if features.pooling == "pooler" else ("pooler.*",))
        extractor = Extractor(
            model.to(world.device).eval(),
            start.tokenizer,
            precision,
            layers,
            features.pooling,
            features.max_seq_length,
            features.batch_size,
        )
        write_features(features, extractor, progress(lines, description="Extracting", unit="line"))


if __name__ == "__main__":
    run_command(main, Config)
