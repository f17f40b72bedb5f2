"""Forked processes, in which JAX hangs: what computes is refused there."""

import os
import sys


class Process:
    """Whether JAX was used in this process, and in the one that it was forked from."""

    used = False
    forked = False

    @classmethod
    def require_own(cls) -> None:
        """Marks JAX as used; raises a RuntimeError in a fork, where it would hang."""
        if cls.forked:
            raise RuntimeError(
                "JAX was used before this process was forked, and hangs in a forked process. Start "
                "workers by spawn: multiprocessing_context='spawn' for a torch DataLoader, "
                "multiprocessing.get_context('spawn') elsewhere."
            )
        if not cls.used:  # to set an attribute of a class takes time
            cls.used = True

    @classmethod
    def fork(cls) -> None:
        """Notes, in the child, that the process was forked."""
        # JAX does not tell whether others have used it; if this name goes, dropax's own use counts.
        backends = getattr(sys.modules.get("jax._src.xla_bridge"), "_backends", None)
        cls.forked = cls.forked or cls.used or bool(backends)


if hasattr(os, "register_at_fork"):  # not on Windows, which only spawns
    os.register_at_fork(after_in_child=Process.fork)
