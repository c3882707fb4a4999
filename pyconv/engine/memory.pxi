# Workspaces, aligned to cache lines and kept from call to call: memory that is mapped anew costs a page fault for every
# 4 KB, which took a quarter of the time of a gradient of 1 ms. Only called with the GIL held.

cdef extern from "stdlib.h" nogil:
    int posix_memalign(void **, size_t, size_t)

cdef enum:
    LINE = 64                        # bytes of a cache line
    KEPT_BLOCKS = 4
    KEPT_BYTES = 25165824            # no larger block is kept


cdef struct Block:
    char *start
    int64_t size


cdef Block kept[KEPT_BLOCKS]
memset(kept, 0, sizeof(kept))


cdef Block take_block(int64_t size, int64_t largest=KEPT_BYTES) except *:
    """The smallest kept block that is large enough, and no larger than `largest`, or a new one."""
    cdef Block block
    cdef int i, best = -1
    cdef void *start = NULL
    for i in range(KEPT_BLOCKS):
        if size <= kept[i].size <= largest and (best < 0 or kept[i].size < kept[best].size):
            best = i
    if best >= 0:
        block = kept[best]
        kept[best].start, kept[best].size = NULL, 0
        return block
    if posix_memalign(&start, LINE, size) != 0:
        raise MemoryError(f"no memory for a workspace of {size} bytes")
    block.start, block.size = <char *> start, size
    return block


cdef void give_back(Block block):
    """Keep the block, in place of the smallest one."""
    cdef int i, least = 0
    for i in range(1, KEPT_BLOCKS):
        if kept[i].size < kept[least].size:
            least = i
    if block.size <= KEPT_BYTES and block.size > kept[least].size:
        free(kept[least].start)
        kept[least] = block
    else:
        free(block.start)
