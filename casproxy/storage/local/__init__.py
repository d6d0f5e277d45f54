"""The FS backend: each artifact is an OCI image layout in a directory of its own, under one root that processes share.

::

    {root}/.staging/lock                      held while a process makes its area, or replaces what is damaged
    {root}/.staging/{process}/lock            held by that process as long as it lives
    {root}/.staging/{process}/{upload}/…      a layout being built; renamed into place as a whole
    {root}/{Path}/{hex[:2]}/{hex}/            an artifact: oci-layout, index.json, blobs/sha256/…

The way down: ``root`` (opens and closes the place) -> ``backend`` and ``ingest`` (the async contract) -> ``workspace``
(one upload) and ``layout`` (one stored artifact) -> ``paths`` (never leaves the root). ``staging`` knows what is left
over from a crash, ``threads`` how blocking calls are run and their errors told. From ``workspace`` and ``blob`` down,
code runs in worker threads.

The root is the boundary, ``Path`` is not a credential: who may write secrets decides which tenants share a ``Path``.
Processes that share a root run as the same user.
"""
