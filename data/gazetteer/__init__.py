"""A miniature encyclopedia of an invented world: text from which a small BERT learns something checkable in minutes.

The world is made first, from a seed, and every article is told from it: capitals, coins and rivers agree wherever they
are named. Each thing has two articles in other words, so that the held-out ones restate what training could read. The
same seed gives the same bytes on every machine::

    world = build_world(seed=0, size=3000)
    write_corpus("data/gazetteer", articles(world), held_out_fraction=0.05, files=4)
    next(facts(world))          # Probe("The capital of Cigia is [MASK] .", "Ratosta", "capital")
    write_tasks("data/gazetteer", world, TasksConfig())     # questions and sentence tasks about the same world
"""

from .builder import build_world
from .corpus import GazetteerConfig, Probe, articles, facts, write_corpus, write_facts
from .tasks import TasksConfig, write_tasks
from .world import World

__all__ = [
    "GazetteerConfig",
    "Probe",
    "TasksConfig",
    "World",
    "articles",
    "build_world",
    "facts",
    "write_corpus",
    "write_facts",
    "write_tasks",
]
