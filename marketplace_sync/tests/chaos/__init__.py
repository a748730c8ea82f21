"""A campaign of random troubles against the whole daemon: `python -m marketplace_sync.tests.chaos`.

`script` makes a run out of a seed, `world` has the processes, the network and the marketplace, `hands` carry out the
script on them, `eyes` check all the time whether the status is true, `judge` checks the end, `report` writes the record
and the table.
"""
