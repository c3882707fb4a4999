# Threads that take the units of a loop one after the other, as long as Ctrl-C does not end it.

cdef extern from "Python.h":
    int PyErr_CheckSignals() except -1

cdef enum:
    NOTHING_HELD = -1                # what the first number of a thread's workspace is before its first unit


cdef double alone_until = 0          # until then, brief calls use one thread: another program holds a core
cdef double alone_for = 0            # how long that was the last time


cdef struct Progress:
    int64_t next_unit, threads_done
    int64_t step                     # units that a thread takes at once: a count that all change is slow to reach
    bint cancelled
    double begun, entered            # when the call began, and when its calling thread took its first unit
    double last_poll
    void *caught                     # a list, for what ended it


# A unit that lasts long calls `go_on` now and then, with whether this is the calling thread.
ctypedef void (*RunUnit)(const void *, int64_t, char *, Progress *, bint) noexcept nogil


cdef void begin(Progress *progress, void *caught) noexcept nogil:
    progress.cancelled = False
    progress.begun = progress.last_poll = monotonic_seconds()
    progress.caught = caught


cdef bint go_on(Progress *progress, bint calling) noexcept nogil:
    """False once Ctrl-C has ended the call, which the calling thread finds out."""
    cdef double now
    if calling:
        now = monotonic_seconds()
        if now - progress.last_poll > 0.1:
            progress.last_poll = now
            poll_signals(progress)
    return not progress.cancelled


# A function of its own: one that has a `with gil` in it takes the lock whenever it returns, each thread for every unit.
cdef void poll_signals(Progress *progress) noexcept with gil:
    try:
        PyErr_CheckSignals()
    except BaseException as e:
        (<list> progress.caught).append(e)
        progress.cancelled = True


cdef void take_units(RunUnit run, const void *problem, int64_t units, char *workspace, Progress *progress,
                     bint calling) noexcept nogil:
    """One thread's share: the next units that no other thread has taken, until there are none."""
    cdef int64_t first = fetch_add(&progress.next_unit, progress.step), unit
    (<int64_t *> workspace)[0] = NOTHING_HELD
    while first < units:
        for unit in range(first, min(units, first + progress.step)):
            if not go_on(progress, calling):
                return
            run(problem, unit, workspace, progress, calling)
        first = fetch_add(&progress.next_unit, progress.step)


cdef void share_units(RunUnit run, const void *problem, int64_t units, char *workspace, int64_t size, int workers,
                      Progress *progress) noexcept nogil:
    """All units, on `workers` threads with `size` bytes of the workspace each."""
    progress.next_unit = progress.threads_done = 0
    if workers > units:
        workers = <int> units
    progress.step = 1 if workers < 1 else max(1, units // (16 * workers))
    if workers <= 1:
        take_units(run, problem, units, workspace, progress, True)
        return
    with parallel(num_threads=workers):
        if threadid() == 0:
            progress.entered = monotonic_seconds()
        take_units(run, problem, units, workspace + threadid() * size, progress, threadid() == 0)
        fetch_add(&progress.threads_done, 1)
        if threadid() == 0:
            await_threads(progress, team_size())


cdef void await_threads(Progress *progress, int threads) noexcept nogil:
    """Wait for the others without holding the processor. OpenMP's own barrier spins: where another program keeps a
    core busy, the thread that is waited for then gets none, and a call of 0.2 ms was seen to take 16 ms.

    Even so such a thread starts, or is ready for the next call, when the scheduler's slice ends, 4 to 8 ms later, and
    there is no leaving it behind. So after waits that took longer than the work, the next calls do not try: for twice
    the wait at first, and twice as long whenever the next try is as late."""
    global alone_until, alone_for
    cdef double started = monotonic_seconds(), waited = 0
    while read_counter(&progress.threads_done) < threads:
        go_on(progress, True)
        waited = monotonic_seconds() - started
        if waited > 1e-4:
            sleep_briefly()
    waited += progress.entered - progress.begun
    if waited > 1e-3 and waited > started - progress.entered:
        alone_for = min(0.2, 2 * max(waited, alone_for))
        alone_until = monotonic_seconds() + alone_for
    else:
        alone_for = 0
