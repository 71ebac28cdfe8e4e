"""A miniature encyclopedia of an invented world: text from which a small BERT learns something checkable in minutes.

A seed determines the world, and all articles describe that world: they agree on capitals, coins and rivers. Each thing
has two articles in different words, so that held-out articles restate facts that training has seen. The same seed gives
the same bytes on every machine::

    world = build_world(seed=0, size=3000)
    write_corpus("data/encyclopedia", articles(world), held_out_fraction=0.05, files=4)
    next(facts(world))          # Probe("The capital of Cigia is [MASK] .", "Ratosta", "capital")
    write_tasks("data/encyclopedia", world, TasksConfig())     # questions and sentence tasks about the same world
"""

from .builder import build_world
from .corpus import GazetteerConfig, Probe, articles, facts, write_corpus, write_facts
from .tasks import TasksConfig, write_tasks
from .templates import load_templates
from .world import InventedWorld

__all__ = [
    "GazetteerConfig",
    "InventedWorld",
    "Probe",
    "TasksConfig",
    "articles",
    "build_world",
    "facts",
    "load_templates",
    "write_corpus",
    "write_facts",
    "write_tasks",
]
