"""The LAMB optimizer: one rule, four implementations that agree.

``reference`` states the rule on plain tensors. ``foreach`` runs it on lists of tensors on any device, ``blocked`` on a
CPU in blocks that stay in the cache, ``triton`` in one CUDA kernel. ``optimizer`` is the torch optimizer over them.
"""

from bert.optim.lamb.optimizer import IMPLEMENTATIONS, Lamb, default_implementation
from bert.optim.lamb.reference import LambOptions, lamb_step
