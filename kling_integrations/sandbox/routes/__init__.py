"""What the sandbox answers on each path, one module per group of calls."""
