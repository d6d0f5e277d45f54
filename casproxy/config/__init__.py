"""Owns the configuration: what can be set, how files and environment become one frozen ``Config``.

Read in this order::

    kinds.py        how a value is written: durations, sizes, addresses, secrets
    section.py      what a part of the model is made of
    model.py        every setting, once, with its meaning; the attribute path is the YAML path
    grpc_limits.py  … those of server.grpc.limits, which are many
    observability.py  … those of observability
    settings.py     the model's annotations as data, for loader, renderer and reference
    files.py        YAML text -> a bounded tree of texts that remember their file and line
    merge.py        a file or a directory, then ``CAS_`` variables, laid over each other
    interpolate.py  ``${key:default}``
    load.py         tree -> ``Config`` and warnings; every error names file, key, what was found and what is wanted
    render.py       ``Config`` -> YAML with secrets hidden
    cgroup.py       what the kernel's control groups allow this process
    memory.py       … the default of server.memory_budget
    cores.py        … what ``auto`` means as server.workers
    reference.py    ``Config`` -> reference table and JSON Schema

Refuses to know what any setting does: that is the business of whoever reads it.
"""

from casproxy.config.load import InvalidConfig, LoadedConfig, load
from casproxy.config.model import Config

__all__ = ["Config", "InvalidConfig", "LoadedConfig", "load"]
