"""Measuring servers: ``casproxy bench``, against a server of its own or anybody's. Nothing else imports this package.

::

    load        what to do, to whom: scenario, sizes, streams      -> Load, Target
    artifact    bytes that cost nothing to make, name and check    -> Pattern, Artifact
    driver      how one call is made; with our client or grpcio    -> Driver, open_driver
    scenarios   what one operation of each scenario does           -> Operation
    runner      streams side by side for a time, one sample        -> measure
    campaign    samples of several targets, A B A B                -> Campaign
    histogram   latencies, mergeable, exact to 1 %                 -> Histogram
    process     CPU and memory of a local process                  -> ProcessMeter
    report      medians, spread, ratios pair by pair               -> summary, table
    picture     what they look like                                -> draw
    plot        pages, bars and text, as SVG or PNG                -> render, write

    local       starts a server for a run that names none          -> running_server
    server      the program it starts: the real application with a store that forgets

Time on a shared machine is noise. What a figure is worth shows in its spread and in its ratio to a peer that was
measured in turn with it; the figures that stay are CPU seconds per GB and bytes of memory.
"""
