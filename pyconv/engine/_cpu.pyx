"""What this machine and this build can do."""

cdef extern from *:
    """
    #if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
    static int cpu_level(void) {
        __builtin_cpu_init();
        if (!(__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi")
              && __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("popcnt") && __builtin_cpu_supports("f16c")
              && __builtin_cpu_supports("lzcnt") && __builtin_cpu_supports("movbe")))
            return 0;
        if (!(__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw")
              && __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq")
              && __builtin_cpu_supports("avx512vl")))
            return 1;
        return 2;
    }
    #else
    static int cpu_level(void) { return 0; }
    #endif
    #if defined(__clang__)
    #define PYCONV_COMPILER "clang " __clang_version__
    #elif defined(__GNUC__)
    #define PYCONV_COMPILER "gcc " __VERSION__
    #else
    #define PYCONV_COMPILER "unknown"
    #endif
    #ifdef _OPENMP
    #include <omp.h>
    #define PYCONV_OPENMP _OPENMP
    static int threads_left(void) {
        int procs = omp_get_num_procs(), limit = omp_get_max_threads();
        return procs < limit ? procs : limit;
    }
    #else
    #define PYCONV_OPENMP 0
    static int threads_left(void) { return 1; }
    #endif
    """
    int cpu_level() nogil
    int threads_left() nogil
    const char *PYCONV_COMPILER
    int PYCONV_OPENMP


def level() -> int:
    """The highest instruction-set level of this processor: 0 baseline, 1 x86-64-v3, 2 x86-64-v4."""
    return cpu_level()


def threads() -> int:
    """Processors that this process may use, at most OMP_NUM_THREADS, or what threadpoolctl has left this thread."""
    return threads_left()


compiler = PYCONV_COMPILER.decode()
openmp = PYCONV_OPENMP               # the OpenMP version's date, 0 where the build has none
