"""The OCI backend: each artifact is an image of its own, ``{Repo}/chainloop-{hex}:latest``, in a tenant's registry.

The way down, one upload::

    stores       opens and closes the place: pool, staging, one Access per registry and credential
    backend      the contract of storage.api, for one tenant's Repo
    ingest       one upload: small ones from memory, the others as they come
    layer        three ways for a large layer: streamed, whole from staging, in chunks from staging
    repository   the distribution API's requests, each with what its answers mean
    access       one credential at one registry: authorised, retried, throttled
    tokens       challenges and bearer tokens                challenge  their grammar
    retry        when and how often again                    errors     what goes wrong, in storage's terms

``reference`` reads ``Repo``; ``reader`` is one download; ``staging`` keeps bodies that may be needed twice.

Everything that is remembered (tokens, challenges, what a registry refuses, when it wants to be left alone, kept
connections) belongs to an ``Access``, and so to one credential: a tenant profits from nothing another tenant learned.

Source: OCI distribution-spec 1.1; for tokens, distribution's docs/spec/auth/token.md.
"""
