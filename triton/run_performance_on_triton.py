"""Measure a served model with perf_analyzer, with the flags of NVIDIA's script of this name.

    python triton/run_performance_on_triton.py --model-name bert --input-data data.json --batch-sizes 1 \\
        --batching-mode static --evaluation-mode online --performance-tool perf_analyzer --result-path static.csv
    python triton/run_performance_on_triton.py --model-name bert_qa --input-data data.json --evaluation-mode online \\
        --request-rates 5 10 20 --request-distribution poisson --batch-sizes 1 --result-path poisson.csv

prepare_input_data.py makes the data. Start triton/serve.sh and this with one BERT_SERVE_ADMIN_KEY: perf_analyzer reads
the model's configuration and statistics. While it runs, the key is in the list of processes.
"""

import asyncio
import sys
import tempfile
from argparse import Namespace
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

from bert.client.triton_client import TritonClient
from bert.deployment.perf import loads_of, measure, random_data, save_rows, write_data
from bert.deployment.plugin import Parser, run_script, spellings

CHOICES = {  # flag: default first
    "measurement_mode": ("count_windows", "time_windows"),
    "batching_mode": ("static", "dynamic"),
    "evaluation_mode": ("offline", "online"),
    "offline_mode": ("system", "cuda"),
    "performance_tool": ("model_analyzer", "perf_analyzer"),
    "request_distribution": ("constant", "poisson"),
}
NUMBERS = {
    "number_of_triton_instances": 1,
    "number_of_model_instances": 1,
    "measurement_interval": 5000,
    "measurement_request_count": 50,
    "concurrency_steps": 32,
    "output_shared_memory_size": 100240,
}


def build_parser() -> Parser:
    parser = Parser(__doc__)
    parser.add_argument(*spellings("server_url"), default="grpc://127.0.0.1:8001", help="grpc:// or http://.")
    parser.add_argument(*spellings("model_name"), required=True, help="Model on the server.")
    parser.add_argument(*spellings("input_data"), default="random", help="data.json, or random (the default).")
    parser.add_argument(*spellings("input_shapes"), action="append", default=[], help="NAME:LENGTH, once an input.")
    parser.add_argument(*spellings("batch_sizes"), type=int, nargs="+", required=True, help="Samples in a request.")
    parser.add_argument(*spellings("request_rates"), type=float, nargs="+", help="Requests a second, not in flight.")
    parser.add_argument(*spellings("result_path"), required=True, help="CSV file to write.")
    parser.add_argument(*spellings("model_repository"), help="For model_analyzer.")
    for name, choices in CHOICES.items():
        parser.add_argument(*spellings(name), choices=choices, default=choices[0], help=f"Default: {choices[0]}.")
    for name, default in NUMBERS.items():
        parser.add_argument(*spellings(name), type=int, default=default, help=f"Default: {default}.")
    parser.add_argument("--warmup", action="store_true", help="Measure once before it counts.")
    parser.add_argument("-v", "--verbose", action="store_true", help="Show perf_analyzer's output.")
    return parser


def main() -> None:
    args = build_parser().last()
    if args.performance_tool == "model_analyzer":
        print("note: model_analyzer is not part of this suite: measuring with perf_analyzer", file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        if args.input_data == "random":
            args.input_data = asyncio.run(make_random_data(args, Path(folder, "random.json")))
        loads = loads_of(args)
        if args.warmup:
            measure(args, loads[:1])
        rows = measure(args, loads)
    save_rows(rows, Path(args.result_path))
    print(args.result_path)


async def make_random_data(args: Namespace, path: Path) -> str:
    async with TritonClient(args.server_url, args.model_name, what="--server-url") as triton:
        data = random_data(triton.names, args.input_shapes)
    write_data(data, path)
    if "question" not in triton.names:
        known = {shape.rsplit(":", 1)[0] for shape in args.input_shapes}
        args.input_shapes += [f"{name}:128" for name in triton.names if name not in known]
    return str(path)


if __name__ == "__main__":
    run_script(main)
