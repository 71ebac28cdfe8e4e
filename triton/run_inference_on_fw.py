"""Run a model here on a data set and dump what it returns, with the flags of NVIDIA's script of this name.

    python triton/run_inference_on_fw.py --input-path model.onnx --input-type onnx --output-dir dumps --dump-labels \\
        --dataloader triton/dataloader.py --predict-file dev-v1.1.json --vocab-file vocab.txt
"""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

from bert.deployment.inference import Dumper, add_dump_flags, add_model_flags, check_type, parse_with_dataloader
from bert.deployment.padded import module_runner, onnx_runner, torchscript_runner
from bert.deployment.plugin import Parser, call_with, run_script, spellings
from bert.log import progress

FILES = {"ts-trace": torchscript_runner, "ts-script": torchscript_runner, "onnx": onnx_runner}


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument(*spellings("input_path"), required=True, help="The model.")
    parser.add_argument(*spellings("input_type"), required=True, help=f"pyt, {', '.join(FILES)}")
    add_dump_flags(parser)
    first = parser.first()
    check_type("--input-type", first.input_type, ("pyt", *FILES))
    get_model = add_model_flags(parser, first.input_path) if first.input_type == "pyt" else None
    args, make = parse_with_dataloader(parser)
    run = module_runner(*call_with(get_model, args)) if get_model else FILES[args.input_type](args.input_path)
    dumper = Dumper.of(args)
    for batch in progress(call_with(make, args)(), description="Running", unit="batch"):
        dumper.write(batch, run(batch[1]))
    print(f"{dumper.samples} samples in {dumper.batches} batches: {dumper.folder}")


if __name__ == "__main__":
    run_script(main)
