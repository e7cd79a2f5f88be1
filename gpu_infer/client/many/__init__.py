"""``score_many``: any number of items through one client, in bounded memory.

::

    options, source   what the caller asked for, and one item after the other out of what was handed in
    flight            the whole job without socket, thread or clock: what goes out when, and what came of it
    job               a flight with its checkpoint, its progress and its errors
    pieces            an item on its way, and items that may share a request
    tuning            how many items in a request, how many requests at once, which request is worth a second one
    checkpoint        results on disk, so that an interrupted job goes on where it stopped
    progress          how far it is
    results, parquet  what the caller gets
    threads, tasks    move the requests: for ScoringClient, for AsyncScoringClient
"""
