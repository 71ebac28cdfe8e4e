"""``python -m bert.benchmark NAME [flags]``: each compares with a peer in one run and prints ratios."""

import importlib
import sys

BENCHMARKS = {
    "pretrain": "a pre-training step against transformers' BertForPreTraining",
    "squad": "SQuAD training, prediction and preparation against transformers' BertForQuestionAnswering",
    "lamb": "the LAMB step against torch.optim.AdamW(fused=True) and the least memory traffic possible",
    "loader": "the shard loader against lddl.torch",
    "preprocess": "preparing shards against LDDL's preprocess_bert_pretrain",
    "scaling": "on paper: from one GPU's rate to 1,024 GPUs, next to published figures",
}


def main() -> None:
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help"):
        rows = "\n".join(f"  {key:12}{text}" for key, text in BENCHMARKS.items())
        print(f"usage: python -m bert.benchmark NAME [flags] (NAME --help lists them)\n\n{rows}")
    elif name not in BENCHMARKS:
        sys.exit(f"error: benchmark {name!r} is unknown: expected one of {', '.join(BENCHMARKS)}")
    else:
        sys.argv[:2] = [f"python -m bert.benchmark {name}"]
        importlib.import_module(f"bert.benchmark.{name}").command()


main()
