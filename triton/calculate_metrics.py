"""Score the dumps of an inference command, with the flags of NVIDIA's script of this name.

    python triton/calculate_metrics.py --metrics triton/metrics.py --dump-dir dumps --csv metrics.csv \\
        --predict-file dev-v1.1.json --vocab-file vocab.txt --output-dir .

Parameters of the MetricsCalculator in the file --metrics are flags, too.
"""

import csv
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

from bert.deployment.dumps import read_dumps
from bert.deployment.plugin import Parser, call_with, run_script, spellings
from bert.errors import naming_os_errors
from bert.files import replacing


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("--metrics", required=True, help="Python file with MetricsCalculator.")
    parser.add_argument("--csv", required=True, help="File for the scores: a header and a row.")
    parser.add_argument(*spellings("dump_dir"), required=True, help="Folder of the dumps.")
    calculator = parser.load(parser.first().metrics, "MetricsCalculator", "--metrics")
    args = parser.last()
    metrics, samples = call_with(calculator, args), 0
    for batch in read_dumps(Path(args.dump_dir)):
        ids = next(iter(batch["ids"].values())).tolist()
        metrics.update(ids=ids, y_pred=batch["outputs"], x=batch.get("inputs"), y_real=batch.get("labels"))
        samples += len(ids)
    row = {"_total_": samples, **metrics.metrics}
    with naming_os_errors(f"--csv {args.csv}"), replacing(Path(args.csv)) as temporary, temporary.open("w") as file:
        writer = csv.DictWriter(file, list(row))
        writer.writeheader()
        writer.writerow(row)
    print(", ".join(f"{name} {value:.2f}" for name, value in row.items() if name != "_total_"))


if __name__ == "__main__":
    run_script(main)
