"""``make demo``: the notebook and the DAG for real, against the sandbox."""
