/* NVIDIA's driver, played by the processor: `libcuda.so.1` as far as it is used, for tests without a GPU.

A stream is a thread that does its work in order: copies, fills and kernels are really done, and a graph replays what
was captured. Memory is the host's, so that "kernels" are C functions (or callbacks) that get the real addresses. Each
call is recorded; any can be made to fail; what is alive is counted. Whatever the real driver forbids is an error here:
no current context, unknown handles, freed memory, allocating or freeing in a thread that captures.

Names and types are those of cuda.h; compile with -DCHECK_HEADER -I<toolkit>/include to have the compiler compare. */
#ifdef CHECK_HEADER
#include <cuda.h>
_Static_assert(CU_STREAM_NON_BLOCKING == 1 && CU_EVENT_BLOCKING_SYNC == 1 && CU_EVENT_DISABLE_TIMING == 2, "flags");
_Static_assert(CU_STREAM_CAPTURE_MODE_THREAD_LOCAL == 1 && CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES == 8, "modes");
_Static_assert(CU_JIT_ERROR_LOG_BUFFER == 5 && CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES == 6, "options of the compiler");
_Static_assert(CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT == 16, "attributes");
_Static_assert(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR == 75 && CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR == 76, "attributes");
_Static_assert(sizeof(CUdeviceptr) == 8 && sizeof(CUdevice) == 4, "sizes");
#else
#include <stddef.h>
typedef int CUresult, CUdevice, CUdevice_attribute, CUstreamCaptureMode, CUjit_option, CUfunction_attribute;
typedef unsigned long long CUdeviceptr;
typedef struct object *CUcontext, *CUstream, *CUevent, *CUgraph, *CUgraphExec, *CUmodule, *CUfunction;
#endif
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { OK = 0, INVALID_VALUE = 1, NO_MEMORY = 2, INVALID_IMAGE = 200, INVALID_CONTEXT = 201, INVALID_HANDLE = 400,
       NOT_FOUND = 500, ILLEGAL_ADDRESS = 700, UNSUPPORTED = 900, INVALIDATED = 901, WRONG_THREAD = 908 };
enum kind { DEVICE_MEMORY, HOST_MEMORY, STREAM, EVENT, GRAPH, GRAPH_EXEC, MODULE, FUNCTION, CONTEXT, KINDS };
enum { MOST_ARGUMENTS = 16, ARGUMENT_BYTES = 64, MOST_CALLS = 1 << 16, MOST_NAME = 32 };

typedef void (*kernel_body)(const unsigned *grid, const unsigned *block, unsigned shared, void **arguments);

struct operation {
    enum { COPY, FILL, KERNEL, RECORD } what;
    char *target, *source, *staged;
    size_t size;
    int value, pageable;
    struct object *function, *event;
    uint64_t ticket;
    unsigned grid[3], block[3], shared;
    char arguments[MOST_ARGUMENTS][ARGUMENT_BYTES];
    struct operation *next;
};

struct object {
    enum kind kind;
    int alive;
    struct object *next;
    char *memory; /* of memory */
    size_t size;
    struct operation *first, **last; /* of streams and graphs */
    int busy, stopping, spoiled; /* of a stream */
    pthread_t thread, captured_by;
    struct object *capturing; /* the graph that it is captured into */
    uint64_t recorded, done; /* of an event */
    char name[MOST_NAME]; /* of a kernel */
    kernel_body body;
    int arguments;
    unsigned most_shared;
    size_t sizes[MOST_ARGUMENTS];
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static struct object *objects; /* everything ever made; nothing is really freed, so that no address comes twice */
static struct object context = {.kind = CONTEXT};
static int retained, lost, devices = 1, driver_version = 12040, start_status;
static int made[KINDS], freed[KINDS], reclaimed, illegal;
static int most_busy;
static unsigned delay_us;
static char calls[MOST_CALLS][MOST_NAME], done_work[MOST_CALLS][MOST_NAME];
static int call_count, done_count, fail_at = -1, fail_status;
static int lose_at = -1, lose_status;
static char fail_name[MOST_NAME];
static size_t memory_limit = (size_t)1 << 40, memory_used;
static __thread struct object *stack[16];
static __thread int depth;

/* ---- what a test says and asks ---- */

void stand_in_fail(int at, int status) { fail_at = at, fail_status = status; }
void stand_in_fail_next(const char *name, int status) { strncpy(fail_name, name, MOST_NAME - 1), fail_status = status; }
void stand_in_lose(int status) { pthread_mutex_lock(&lock), lost = status, pthread_cond_broadcast(&changed), pthread_mutex_unlock(&lock); }
void stand_in_lose_at(int at, int status) { lose_at = at, lose_status = status; }
void stand_in_settle(void) { /* waits until no stream is in the midst of something */
    pthread_mutex_lock(&lock);
    for (struct object *o = objects; o; o = o->next)
        while (o->kind == STREAM && (o->busy || (o->first && !o->capturing))) pthread_cond_wait(&changed, &lock);
    pthread_mutex_unlock(&lock);
}
void stand_in_delay(unsigned us) { delay_us = us; }
void stand_in_devices(int count, int status) { devices = count, start_status = status; }
void stand_in_memory(size_t bytes) { memory_limit = bytes; }
int stand_in_call_count(void) { return call_count; }
const char *stand_in_call(int k) { return calls[k]; }
int stand_in_done_count(void) { return done_count; }
const char *stand_in_done(int k) { return done_work[k]; }
int stand_in_alive(int kind) { return made[kind] - freed[kind]; }
int stand_in_made(int kind) { return made[kind]; }
int stand_in_retained(void) { return retained; }
int stand_in_reclaimed(void) { return reclaimed; } /* left to the end of the context: leaks */
int stand_in_illegal(void) { return illegal; }     /* copies to or from memory that was not there */
int stand_in_most_busy(void) {                     /* streams at work at once, since it was asked last */
    int most = most_busy;
    return most_busy = 0, most;
}
int stand_in_depth(void) { return depth; }         /* contexts that this thread has pushed */

/* A kernel that modules may have, with the sizes of its arguments. */
void stand_in_kernel(const char *name, kernel_body body, int arguments, const size_t *sizes) {
    struct object *kernel = calloc(1, sizeof *kernel);
    kernel->kind = FUNCTION, kernel->alive = 1, kernel->body = body, kernel->arguments = arguments;
    kernel->most_shared = 48 << 10;
    strncpy(kernel->name, name, MOST_NAME - 1);
    for (int k = 0; k < arguments; k++) kernel->sizes[k] = sizes[k];
    kernel->next = objects, objects = kernel;
}

/* ---- bookkeeping; all with the lock held ---- */

static CUresult entered(const char *name) {
    int number = call_count++;
    strncpy(calls[number % MOST_CALLS], name, MOST_NAME - 1);
    if (number == lose_at) lost = lose_status;
    int fails = number == fail_at || !strcmp(name, fail_name);
    if (fails) fail_name[0] = 0;
    return fails ? fail_status : OK;
}

#define LEAVE(status)                      \
    do {                                   \
        int left = (int)(status);          \
        pthread_mutex_unlock(&lock);       \
        return (CUresult)left;             \
    } while (0)
#define ENTER_ANYWHERE                                    \
    pthread_mutex_lock(&lock);                            \
    int failed = entered(__func__);                       \
    if (failed) LEAVE(failed)
#define ENTER                                             \
    ENTER_ANYWHERE;                                       \
    if (lost) LEAVE(lost);                                \
    if (!depth || stack[depth - 1] != &context || !retained) LEAVE(INVALID_CONTEXT)
#define NEED(handle, type) \
    if (!is((struct object *)(handle), type)) LEAVE(INVALID_HANDLE)

static int is(struct object *given, enum kind kind) {
    for (struct object *o = objects; o; o = o->next)
        if (o == given) return o->alive && o->kind == kind;
    return 0;
}

static struct object *make(enum kind kind) {
    struct object *o = calloc(1, sizeof *o);
    o->kind = kind, o->alive = 1, o->last = &o->first, o->next = objects, objects = o;
    made[kind]++;
    return o;
}

static void unmake(struct object *o) {
    o->alive = 0, freed[o->kind]++;
    if (o->kind == DEVICE_MEMORY) memory_used -= o->size;
    if (o->memory) memset(o->memory, 0xdd, o->size);
}

static struct object *block_of(const char *address, size_t size, enum kind kind) {
    for (struct object *o = objects; o; o = o->next)
        if (o->alive && o->kind == kind && o->memory && address >= o->memory && address + size <= o->memory + o->size)
            return o;
    return NULL;
}

static void spoil_captures(void) { /* what is forbidden in a thread that captures spoils the capture */
    for (struct object *o = objects; o; o = o->next)
        if (o->alive && o->kind == STREAM && o->capturing && pthread_equal(o->captured_by, pthread_self())) o->spoiled = 1;
}

static int captures(void) {
    for (struct object *o = objects; o; o = o->next)
        if (o->alive && o->kind == STREAM && o->capturing && pthread_equal(o->captured_by, pthread_self())) return 1;
    return 0;
}

#define NOT_IN_CAPTURE \
    if (captures()) do { spoil_captures(); LEAVE(UNSUPPORTED); } while (0)

/* ---- a stream's thread ---- */

static int there(const struct operation *op, const char *address) {
    return block_of(address, op->size, DEVICE_MEMORY) || block_of(address, op->size, HOST_MEMORY);
}

static void note(const char *what) {
    strncpy(done_work[done_count++ % MOST_CALLS], what, MOST_NAME - 1);
}

static void perform(struct operation *op) { /* with the lock, given up while a kernel runs */
    if (lost) return;
    if (op->what == COPY || op->what == FILL) {
        int safe = op->pageable || ((op->staged || op->what == FILL || there(op, op->source)) && there(op, op->target));
        if (!safe) {
            illegal++, lost = ILLEGAL_ADDRESS;
            return;
        }
        if (op->what == COPY) memcpy(op->target, op->staged ? op->staged : op->source, op->size), note("copy");
        else memset(op->target, op->value, op->size), note("fill");
    } else if (op->what == KERNEL) {
        void *arguments[MOST_ARGUMENTS];
        for (int k = 0; k < MOST_ARGUMENTS; k++) arguments[k] = op->arguments[k];
        note(op->function->name);
        pthread_mutex_unlock(&lock);
        op->function->body(op->grid, op->block, op->shared, arguments);
        pthread_mutex_lock(&lock);
    } else if (op->event->done < op->ticket) op->event->done = op->ticket;
}

static void *run(void *given) {
    struct object *stream = given;
    pthread_mutex_lock(&lock);
    for (;;) {
        while (!stream->first && !stream->stopping) pthread_cond_wait(&changed, &lock);
        if (!stream->first) break;
        struct operation *op = stream->first;
        stream->first = op->next;
        if (!stream->first) stream->last = &stream->first;
        stream->busy = 1;
        if (delay_us && op->what != RECORD) {
            pthread_mutex_unlock(&lock);
            usleep(delay_us);
            pthread_mutex_lock(&lock);
        }
        perform(op);
        free(op->staged), free(op);
        stream->busy = 0;
        pthread_cond_broadcast(&changed);
    }
    pthread_mutex_unlock(&lock);
    return NULL;
}

static void append(struct object *to, const struct operation *op) {
    struct operation *copy = malloc(sizeof *copy);
    *copy = *op, copy->next = NULL;
    *to->last = copy, to->last = &copy->next;
}

static void enqueue(struct object *stream, struct operation *op) {
    append(stream->capturing ? stream->capturing : stream, op);
    pthread_cond_broadcast(&changed);
}

static void enqueue_all(struct object *to, const struct object *from) {
    for (const struct operation *op = from->first; op; op = op->next) append(to, op);
    pthread_cond_broadcast(&changed);
}

static int drained(struct object *stream) {
    while ((stream->first || stream->busy) && !lost) pthread_cond_wait(&changed, &lock);
    return lost;
}

/* What another library puts on a stream. */
int stand_in_put(struct object *stream, kernel_body body) {
    struct object *kernel = calloc(1, sizeof *kernel);
    kernel->kind = FUNCTION, kernel->body = body, strcpy(kernel->name, "put");
    struct operation op = {.what = KERNEL, .function = kernel};
    pthread_mutex_lock(&lock);
    int known = is(stream, STREAM);
    if (known) enqueue(stream, &op);
    pthread_mutex_unlock(&lock);
    return known;
}

/* ---- the driver's functions ---- */

CUresult cuInit(unsigned int flags) {
    ENTER_ANYWHERE;
    LEAVE(flags ? INVALID_VALUE : start_status);
}

CUresult cuDriverGetVersion(int *version) {
    ENTER_ANYWHERE;
    *version = driver_version;
    LEAVE(OK);
}

CUresult cuGetErrorName(CUresult error, const char **text) {
    *text = (int)error == ILLEGAL_ADDRESS ? "CUDA_ERROR_ILLEGAL_ADDRESS" : (int)error == NO_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY" : "CUDA_ERROR_STAND_IN";
    return (int)error == 12345 ? (CUresult)INVALID_VALUE : (CUresult)OK;
}

CUresult cuGetErrorString(CUresult error, const char **text) {
    *text = (int)error == ILLEGAL_ADDRESS ? "an illegal memory access was encountered" : (int)error == NO_MEMORY ? "out of memory" : "made to fail";
    return (int)error == 12345 ? (CUresult)INVALID_VALUE : (CUresult)OK;
}

CUresult cuDeviceGetCount(int *count) {
    ENTER_ANYWHERE;
    *count = devices;
    LEAVE(OK);
}

CUresult cuDeviceGet(CUdevice *device, int ordinal) {
    ENTER_ANYWHERE;
    *device = 7 + ordinal; /* a handle is not a number from 0 on */
    LEAVE(ordinal < devices ? OK : 101);
}

CUresult cuDeviceGetName(char *name, int length, CUdevice device) {
    ENTER_ANYWHERE;
    snprintf(name, (size_t)length, "stand-in %d", device);
    LEAVE(OK);
}

CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice device) {
    ENTER_ANYWHERE;
    (void)device;
    *value = attribute == 75 ? 8 : attribute == 76 ? 6 : attribute == 16 ? 28 : -1;
    LEAVE(OK);
}

CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice device) {
    ENTER_ANYWHERE;
    (void)device;
    *bytes = (size_t)12 << 30;
    LEAVE(OK);
}

CUresult cuDevicePrimaryCtxRetain(CUcontext *found, CUdevice device) {
    ENTER_ANYWHERE;
    if (device != 7) LEAVE(101);
    if (lost) LEAVE(lost);
    retained++;
    *found = (CUcontext)&context;
    LEAVE(OK);
}

CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device) {
    ENTER_ANYWHERE;
    if (device != 7 || !retained) LEAVE(INVALID_CONTEXT);
    if (--retained == 0)
        for (struct object *o = objects; o; o = o->next)
            if (o->alive && o->kind != FUNCTION) {
                if (o->kind == STREAM) o->stopping = 1;
                unmake(o), reclaimed++;
            }
    pthread_cond_broadcast(&changed);
    LEAVE(OK);
}

CUresult cuCtxPushCurrent_v2(CUcontext given) {
    ENTER_ANYWHERE;
    if ((struct object *)given != &context || !retained || depth == 16) LEAVE(INVALID_CONTEXT);
    stack[depth++] = (struct object *)given;
    LEAVE(OK);
}

CUresult cuCtxPopCurrent_v2(CUcontext *popped) {
    ENTER_ANYWHERE;
    if (!depth) LEAVE(INVALID_CONTEXT);
    *popped = (CUcontext)stack[--depth];
    LEAVE(OK);
}

CUresult cuMemAlloc_v2(CUdeviceptr *address, size_t size) {
    ENTER;
    NOT_IN_CAPTURE;
    if (!size) LEAVE(INVALID_VALUE);
    if (memory_used + size > memory_limit) LEAVE(NO_MEMORY);
    struct object *o = make(DEVICE_MEMORY);
    o->size = size, o->memory = malloc(size), memory_used += size;
    memset(o->memory, 0xa5, size);
    *address = (CUdeviceptr)(uintptr_t)o->memory;
    LEAVE(OK);
}

CUresult cuMemFree_v2(CUdeviceptr address) {
    ENTER;
    NOT_IN_CAPTURE;
    struct object *o = block_of((char *)(uintptr_t)address, 1, DEVICE_MEMORY);
    if (!o || o->memory != (char *)(uintptr_t)address) LEAVE(INVALID_VALUE);
    for (struct object *stream = objects; stream; stream = stream->next) /* waits for all work, unlike cuMemFreeHost */
        if (stream->kind == STREAM) drained(stream);
    unmake(o);
    LEAVE(OK);
}

CUresult cuMemHostAlloc(void **address, size_t size, unsigned int flags) {
    ENTER;
    NOT_IN_CAPTURE;
    if (!size || flags) LEAVE(INVALID_VALUE);
    struct object *o = make(HOST_MEMORY);
    o->size = size, o->memory = malloc(size);
    memset(o->memory, 0xa5, size);
    *address = o->memory;
    LEAVE(OK);
}

CUresult cuMemFreeHost(void *address) {
    ENTER;
    NOT_IN_CAPTURE;
    struct object *o = block_of(address, 1, HOST_MEMORY);
    if (!o || o->memory != address) LEAVE(INVALID_VALUE);
    unmake(o);
    LEAVE(OK);
}

CUresult cuMemsetD8Async(CUdeviceptr target, unsigned char value, size_t size, CUstream stream) {
    ENTER;
    NEED(stream, STREAM);
    struct operation op = {.what = FILL, .target = (char *)(uintptr_t)target, .size = size, .value = value};
    if (!block_of(op.target, size, DEVICE_MEMORY)) LEAVE(INVALID_VALUE);
    enqueue((struct object *)stream, &op);
    LEAVE(OK);
}

CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr target, const void *source, size_t size, CUstream given) {
    ENTER;
    NEED(given, STREAM);
    struct object *stream = (struct object *)given;
    struct operation op = {.what = COPY, .target = (char *)(uintptr_t)target, .source = (char *)source, .size = size};
    if (!block_of(op.target, size, DEVICE_MEMORY)) LEAVE(INVALID_VALUE);
    if (!block_of(source, size, HOST_MEMORY)) { /* pageable: the driver takes a copy at once */
        if (stream->capturing) LEAVE((stream->spoiled = 1, UNSUPPORTED));
        op.staged = malloc(size), memcpy(op.staged, source, size);
    }
    enqueue(stream, &op);
    LEAVE(OK);
}

CUresult cuMemcpyDtoHAsync_v2(void *target, CUdeviceptr source, size_t size, CUstream given) {
    ENTER;
    NEED(given, STREAM);
    struct object *stream = (struct object *)given;
    struct operation op = {.what = COPY, .target = target, .source = (char *)(uintptr_t)source, .size = size};
    if (!block_of(op.source, size, DEVICE_MEMORY)) LEAVE(INVALID_VALUE);
    op.pageable = !block_of(target, size, HOST_MEMORY); /* pageable: returns when it is done */
    if (op.pageable && stream->capturing) LEAVE((stream->spoiled = 1, UNSUPPORTED));
    enqueue(stream, &op);
    LEAVE(op.pageable ? drained(stream) : OK);
}

CUresult cuStreamCreate(CUstream *stream, unsigned int flags) {
    ENTER;
    NOT_IN_CAPTURE;
    if (flags > 1) LEAVE(INVALID_VALUE);
    struct object *o = make(STREAM);
    if (pthread_create(&o->thread, NULL, run, o)) LEAVE(NO_MEMORY);
    pthread_detach(o->thread);
    *stream = (CUstream)o;
    LEAVE(OK);
}

CUresult cuStreamSynchronize(CUstream given) {
    ENTER;
    NEED(given, STREAM);
    struct object *stream = (struct object *)given;
    if (stream->capturing) LEAVE((stream->spoiled = 1, UNSUPPORTED));
    LEAVE(drained(stream));
}

CUresult cuStreamDestroy_v2(CUstream given) { /* returns at once; its work is done nevertheless */
    ENTER;
    NEED(given, STREAM);
    struct object *stream = (struct object *)given;
    stream->stopping = 1;
    unmake(stream);
    pthread_cond_broadcast(&changed);
    LEAVE(OK);
}

CUresult cuEventCreate(CUevent *event, unsigned int flags) {
    ENTER;
    if (flags > 3) LEAVE(INVALID_VALUE);
    *event = (CUevent)make(EVENT);
    LEAVE(OK);
}

CUresult cuEventRecord(CUevent given, CUstream stream) {
    ENTER;
    NEED(given, EVENT);
    NEED(stream, STREAM);
    struct object *event = (struct object *)given;
    if (((struct object *)stream)->capturing) LEAVE(UNSUPPORTED);
    struct operation op = {.what = RECORD, .event = event, .ticket = ++event->recorded};
    enqueue((struct object *)stream, &op);
    LEAVE(OK);
}

CUresult cuEventSynchronize(CUevent given) {
    ENTER;
    NEED(given, EVENT);
    struct object *event = (struct object *)given;
    uint64_t ticket = event->recorded;
    while (event->done < ticket && !lost) pthread_cond_wait(&changed, &lock);
    LEAVE(lost);
}

CUresult cuEventDestroy_v2(CUevent event) {
    ENTER;
    NEED(event, EVENT);
    unmake((struct object *)event);
    LEAVE(OK);
}

CUresult cuStreamBeginCapture_v2(CUstream given, CUstreamCaptureMode mode) {
    ENTER;
    NEED(given, STREAM);
    struct object *stream = (struct object *)given;
    if ((int)mode != 1 || stream->capturing) LEAVE(INVALID_VALUE);
    stream->capturing = calloc(1, sizeof *stream), stream->capturing->last = &stream->capturing->first;
    stream->spoiled = 0, stream->captured_by = pthread_self();
    LEAVE(OK);
}

CUresult cuStreamEndCapture(CUstream given, CUgraph *graph) { /* a failing one ends the capture too */
    pthread_mutex_lock(&lock);
    int failed = entered(__func__);
    if (!is((struct object *)given, STREAM) || !((struct object *)given)->capturing) LEAVE(INVALID_VALUE);
    struct object *stream = (struct object *)given, *captured = stream->capturing;
    if (!pthread_equal(stream->captured_by, pthread_self())) LEAVE(WRONG_THREAD);
    stream->capturing = NULL, *graph = NULL;
    if (failed || lost || stream->spoiled) LEAVE(failed ? failed : lost ? lost : INVALIDATED);
    struct object *o = make(GRAPH);
    enqueue_all(o, captured);
    *graph = (CUgraph)o;
    LEAVE(OK);
}

CUresult cuGraphInstantiateWithFlags(CUgraphExec *found, CUgraph graph, unsigned long long flags) {
    ENTER;
    NEED(graph, GRAPH);
    if (flags) LEAVE(INVALID_VALUE);
    struct object *o = make(GRAPH_EXEC);
    enqueue_all(o, (struct object *)graph);
    *found = (CUgraphExec)o;
    LEAVE(OK);
}

CUresult cuGraphLaunch(CUgraphExec graph, CUstream stream) {
    ENTER;
    NEED(graph, GRAPH_EXEC);
    NEED(stream, STREAM);
    if (((struct object *)stream)->capturing) LEAVE(UNSUPPORTED);
    enqueue_all((struct object *)stream, (struct object *)graph);
    int busy = 0;
    for (struct object *o = objects; o; o = o->next) busy += o->kind == STREAM && (o->first || o->busy);
    if (busy > most_busy) most_busy = busy;
    LEAVE(OK);
}

CUresult cuGraphDestroy(CUgraph graph) {
    ENTER;
    NEED(graph, GRAPH);
    unmake((struct object *)graph);
    LEAVE(OK);
}

CUresult cuGraphExecDestroy(CUgraphExec graph) {
    ENTER;
    NEED(graph, GRAPH_EXEC);
    unmake((struct object *)graph);
    LEAVE(OK);
}

CUresult cuModuleLoadDataEx(CUmodule *module, const void *image, unsigned int count, CUjit_option *options, void **values) {
    ENTER;
    NOT_IN_CAPTURE;
    if (strncmp(image, "stand-in", 8)) {
        char *log = NULL;
        for (unsigned k = 0; k < count; k++) {
            if ((int)options[k] == 5) log = values[k];
            if ((int)options[k] == 6 && log) snprintf(log, (size_t)(uintptr_t)values[k], "ptxas fatal :\n no version\n");
        }
        LEAVE(INVALID_IMAGE);
    }
    *module = (CUmodule)make(MODULE);
    LEAVE(OK);
}

CUresult cuModuleUnload(CUmodule module) {
    ENTER;
    NEED(module, MODULE);
    unmake((struct object *)module);
    LEAVE(OK);
}

CUresult cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name) {
    ENTER;
    NEED(module, MODULE);
    for (struct object *o = objects; o; o = o->next)
        if (o->kind == FUNCTION && !strcmp(o->name, name)) {
            *function = (CUfunction)o;
            LEAVE(OK);
        }
    LEAVE(NOT_FOUND);
}

CUresult cuFuncSetAttribute(CUfunction function, CUfunction_attribute attribute, int value) {
    ENTER;
    NEED(function, FUNCTION);
    if ((int)attribute != 8 || value > 99 << 10) LEAVE(INVALID_VALUE);
    ((struct object *)function)->most_shared = (unsigned)value;
    LEAVE(OK);
}

CUresult cuLaunchKernel(CUfunction given, unsigned int gx, unsigned int gy, unsigned int gz, unsigned int bx,
                        unsigned int by, unsigned int bz, unsigned int shared, CUstream stream, void **arguments,
                        void **extra) {
    ENTER;
    NEED(given, FUNCTION);
    NEED(stream, STREAM);
    struct object *function = (struct object *)given;
    if (made[MODULE] == freed[MODULE]) LEAVE(INVALID_HANDLE);
    if (extra || shared > function->most_shared || !gx || !gy || !gz || bx * by * bz < 1 || bx * by * bz > 1024)
        LEAVE(INVALID_VALUE);
    struct operation op = {.what = KERNEL, .function = function, .grid = {gx, gy, gz}, .block = {bx, by, bz}, .shared = shared};
    for (int k = 0; k < function->arguments; k++) memcpy(op.arguments[k], arguments[k], function->sizes[k]);
    enqueue((struct object *)stream, &op);
    LEAVE(OK);
}
