"""The LAMB optimizer: one rule, four implementations that agree.

``reference`` states the rule on plain tensors, ``foreach`` runs it on lists of tensors and, for CPUs, in blocks that
stay in the cache, ``triton`` in two CUDA kernels. ``optimizer`` is the torch optimizer over them.
"""

from bert.optim.lamb.optimizer import IMPLEMENTATIONS, Lamb, default_implementation
from bert.optim.lamb.reference import lamb_step

__all__ = ["IMPLEMENTATIONS", "Lamb", "default_implementation", "lamb_step"]
