"""What a run reports: DLLogger-format JSON lines and stdout, TensorBoard, and progress bars.

Every event is in the file when ``log`` returns, and a resumed run appends to the file. Each line is strict JSON: NaN
and the infinities are strings that ``float`` reads back. Ranks other than 0 get a logger that does nothing. NVIDIA's
``dllogger`` (not on PyPI) writes the same lines if it is installed::

    with build_logger("results/dllogger.json", "results/tensorboard", is_main=True) as logger:
        logger.metadata("training_sequences_per_second", unit="sequences/s", format=":.1f")
        logger.parameter(SEED=42)                                   # step "PARAMETER"
        logger.log((0, 10), {"average_loss": 10.2})                 # step [epoch, iteration]
        logger.summary({"training_sequences_per_second": 512.3})    # step []
"""

from bert.log.logger import LogConfig, Logger, build_logger, resolve_log
from bert.log.progress import progress
