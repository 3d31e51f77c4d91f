"""What Linux's <sys/epoll.h> says."""

from libc.stdint cimport uint32_t

cdef extern from "<sys/epoll.h>" nogil:
    int EPOLL_CLOEXEC
    int EPOLL_CTL_ADD
    int EPOLL_CTL_DEL
    int EPOLL_CTL_MOD
    uint32_t EPOLLERR
    uint32_t EPOLLHUP
    uint32_t EPOLLIN
    uint32_t EPOLLOUT

    union epoll_data:
        uint32_t u32

    struct epoll_event:
        uint32_t events
        epoll_data data

    int epoll_create1(int flags)
    int epoll_ctl(int epoll, int how, int descriptor, epoll_event* event)
    int epoll_wait(int epoll, epoll_event* events, int count_max, int timeout_ms)
