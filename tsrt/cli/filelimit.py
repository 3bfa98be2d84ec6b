"""How many connections a process may have."""

from __future__ import annotations


def raiseFileLimit() -> None:
    """
    Let this process have as many files, and so sockets, as the system permits.

    Many systems begin with 1,024 for the sake of programs that use C{select},
    which a node that forwards the flows of others does not.
    """
    try:
        import resource
    except ImportError:
        # Windows has no such limit.
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):
            # macOS says "unlimited" and permits less.
            pass
