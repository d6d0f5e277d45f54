"""What an operator sees. Cross-cutting: interceptors and wrappers feed it, services say facts and know nobody of it.

::

    log            how a line looks, what is cut out of it, who is told of errors
    metrics        every series, and its text form        lag     the event loop's delay
    calls          one line and the counters per call     timed   one request to something outside
    facts          what a call may be told about: who calls, what was uploaded or downloaded
    tracing        OpenTelemetry                          sentry  reports of what nobody expected
    audit          the trail of events: queue, outages    audit_event  an event's bytes
    nats           one connection to NATS                 nats_protocol  its text, sans-io

``casproxy/observation.py`` puts them together from the configuration. ``tracing``, ``sentry`` and ``audit`` are not
imported unless they are switched on.
"""
