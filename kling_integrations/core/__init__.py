"""What a generation is and how to get one; knows no notebook and no DAG.

``protocol`` and ``waiting`` decide, without I/O; the two clients carry bytes; ``submission``
decides what a record of a payment says to do, and ``ledger`` keeps such records.
"""
