"""Owns serving from several processes: a supervisor that accepts, and workers that serve what it hands them.

::

                    gRPC port   HTTP port   metrics port
                         │           │            │
                    ┌────▼───────────▼────────────▼────┐
                    │ supervisor: accepts, counts,     │     starts, watches, restarts, drains;
                    │ passes sockets, adds up metrics  │     carries no byte of a call
                    └──┬────────────────────────────┬──┘
       sockets ▼  ▲ state, metrics        sockets ▼  ▲ state, metrics
                    ┌──┴───────┐             ┌──────┴───┐
                    │ worker 1 │             │ worker 2 │     each a whole ``app.App``: event loop, caches,
                    └──────────┘             └──────────┘     connections to stores

Two Unix sockets lead to each worker: one for connections (``SCM_RIGHTS``), one for messages. Either end of the second
means that the other process is gone. Read in this order::

    messages.py     what is said between the two, and how it travels
    hand_over.py    a connection from one process to another
    balance.py      who gets the next one (pure)
    restarts.py     when a worker that ended is started again, and when to give up (pure)
    shares.py       a configuration for the whole -> the part of one worker (pure)
    merge.py        the metrics of many processes as those of one (pure)
    process.py      one worker as its supervisor sees it
    supervisor.py   all of them
    worker.py       the worker's own side: ``python -m casproxy.workers.worker``

With ``server.workers: 1`` nothing here is imported. docs/explanation/workers.md explains it to operators.
"""
