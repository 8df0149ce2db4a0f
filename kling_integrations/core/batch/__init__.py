"""A table of requests as one piece of work: one payment a row, one result a row.

``cells`` and ``rows`` say what a row asks for and what makes it the same row again, ``budget`` and
``window`` whether one more may be submitted, ``results`` what becomes of a row and ``tally`` how
the whole stands; none of them does I/O. ``plan`` holds the rows against what is paid for already,
``run`` drives them on an AsyncKlingClient. That nothing is paid twice is the ledger's doing: a row
is one request of its own there.
"""
