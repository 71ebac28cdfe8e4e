"""Run a served model on a data set and dump what it returns, with the flags of NVIDIA's script of this name.

    python triton/run_inference_on_triton.py --model-name bert --model-version 1 --output-dir dumps --dump-labels \\
        --dataloader triton/dataloader.py --predict-file dev-v1.1.json --vocab-file vocab.txt

--model-version "" is the version that the server chooses.
"""

import asyncio
import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

from bert.client.triton_client import TritonClient
from bert.deployment.inference import Dumper, add_dump_flags, infer_on_triton, parse_with_dataloader
from bert.deployment.plugin import Parser, call_with, run_script, spellings
from bert.deployment.questions import Batch
from bert.log import progress


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument(*spellings("server_url"), default="localhost:8001", help="Its gRPC service.")
    parser.add_argument(*spellings("model_name"), required=True, help="Model on the server.")
    parser.add_argument(*spellings("model_version"), required=True, help="Its version.")
    add_dump_flags(parser)
    parser.add_argument(*spellings("response_wait_time"), type=float, default=120, help="Seconds. Default: 120.")
    parser.add_argument(*spellings("max_unresponded_requests"), type=int, default=128, help="Default: 128.")
    parser.add_argument("--synchronous", action="store_true", help="One request after the other.")
    args, make = parse_with_dataloader(parser)
    asyncio.run(run(args, call_with(make, args)()))


async def run(args: Namespace, batches: Iterator[Batch]) -> None:
    version, wait = args.model_version, args.response_wait_time
    async with TritonClient(args.server_url, args.model_name, version, "--server-url", wait) as triton:
        dumper, began = Dumper.of(args), time.perf_counter()
        in_flight = 1 if args.synchronous else max(args.max_unresponded_requests, 1)
        with progress(description="Running", unit="batch") as bar:
            async for batch, outputs in infer_on_triton(triton, batches, in_flight):
                dumper.write(batch, outputs)
                bar.update()
    rate = dumper.samples / (time.perf_counter() - began)
    print(f"{dumper.samples} samples in {dumper.batches} batches, {rate:.1f} a second: {dumper.folder}")


if __name__ == "__main__":
    run_script(main)
