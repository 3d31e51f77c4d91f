"""What the cyclic garbage collector need not look at."""

from __future__ import annotations


def spare(thing):
    """Let the collector not look at an object any more; it is freed as before, by its references.

    Only for what no cycle can come to lead through.
    """
    if PyObject_GC_IsTracked(thing):
        PyObject_GC_UnTrack(<void*>thing)
