/* The part of zmq.h (libzmq 4, stable since 3.2) that examples/clients/send_frames.cpp uses. */
#include <stddef.h>
#define ZMQ_PUSH 8
#define ZMQ_SNDMORE 2
extern "C" {
void *zmq_ctx_new(void);
int zmq_ctx_term(void *context);
void *zmq_socket(void *context, int type);
int zmq_close(void *socket);
int zmq_connect(void *socket, const char *address);
int zmq_send(void *socket, const void *data, size_t size, int flags);
}
