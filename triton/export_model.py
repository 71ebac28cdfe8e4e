"""Export a model that takes padded batches, with the flags of NVIDIA's script of this name.

    python triton/export_model.py --input-path triton/model.py --input-type pyt \\
        --output-path model.onnx --output-type onnx --checkpoint results/SQuAD/pytorch_model.bin \\
        --dataloader triton/dataloader.py --predict-file dev-v1.1.json --vocab-file vocab.txt

The files --input-path and --dataloader bring flags of their own: name them before --help to see those, too. To serve
a model use triton/export.py, whose models compute no padding.
"""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np

from bert.deployment.inference import add_model_flags, check_type
from bert.deployment.padded import INPUTS, WRITERS, WriteOptions, write_model
from bert.deployment.plugin import Parser, call_with, run_script, spellings


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument(*spellings("input_path"), required=True, help="Python file with get_model.")
    parser.add_argument(*spellings("input_type"), required=True, help="pyt.")
    parser.add_argument(*spellings("output_path"), required=True, help="File to write.")
    parser.add_argument(*spellings("output_type"), required=True, help=", ".join(WRITERS))
    parser.add_argument("--dataloader", help="Python file with get_dataloader_fn; its first batch is the example.")
    parser.add_argument(*spellings("ignore_unknown_parameters"), action="store_true", help="Accept unknown flags.")
    parser.add_argument(*spellings("onnx_opset"), type=int, default=20, help="For other models than triton/model.py's.")
    parser.add_argument("-v", "--verbose", action="store_true", help="Name the flags' values.")
    first = parser.first()
    check_type("--input-type", first.input_type, ("pyt",))
    check_type("--output-type", first.output_type, tuple(WRITERS))
    get_model = add_model_flags(parser, first.input_path)
    make = parser.load(first.dataloader, "get_dataloader_fn", "--dataloader") if first.dataloader else None
    args = parser.last(ignore_unknown=first.ignore_unknown_parameters)
    if args.verbose:
        print("\n".join(f"{name} = {value}" for name, value in vars(args).items()))
    model, names = call_with(get_model, args)
    example = next(iter(call_with(make, args)()))[1] if make else {name: np.ones((2, 16), np.int32) for name in INPUTS}
    fixed = getattr(args, "fixed_batch_dim", False)
    options = WriteOptions(getattr(args, "precision", "fp32"), fixed, args.onnx_opset)
    write_model(model, names, args.output_type, Path(args.output_path), example, options)
    print(args.output_path)


if __name__ == "__main__":
    run_script(main)
