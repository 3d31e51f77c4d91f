"""Layout of the cached wall clock, for extensions that read it without Python calls."""

from libc.stdint cimport int64_t


cdef class Zone:
    cdef readonly str name
    cdef object _zone_info
    cdef dict _spans_by_day
    # The span that the last question fell into; nearly every question falls into it again.
    cdef int64_t _span_start
    cdef int64_t _span_end
    cdef int64_t _span_offset

    cdef int64_t local_at(self, int64_t moment, int64_t* until) except? -1
    cdef int _load_span(self, int64_t moment) except -1
    cdef list _measure_day(self, int64_t day_start)
    cdef int64_t _offset_at(self, int64_t moment) except? -1
