"""What the interpreter offers to those that know an object to be in no cycle."""

cdef extern from "Python.h":
    bint PyObject_GC_IsTracked(object)
    void PyObject_GC_UnTrack(void*)
