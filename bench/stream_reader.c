/* What a C program takes from a stream: stream_reader HOST PORT USER PASSWORD VHOST QUEUE COUNT PREFETCH
   Consumes from the first message, acknowledges as eventsink does, prints the seconds from the first delivery to the
   last and the seconds of CPU. */
#include <amqp.h>
#include <amqp_tcp_socket.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>

static double now(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec + at.tv_nsec / 1e9;
}

static void ok(int good, const char *what) {
    if (!good) { fprintf(stderr, "stream_reader: %s failed\n", what); exit(1); }
}

int main(int argc, char **argv) {
    ok(argc == 9, "reading 8 arguments");
    long count = atol(argv[7]), prefetch = atol(argv[8]), unacknowledged = 0;
    amqp_connection_state_t connection = amqp_new_connection();
    ok(amqp_socket_open(amqp_tcp_socket_new(connection), argv[1], atoi(argv[2])) == 0, "connecting");
    ok(amqp_login(connection, argv[5], 0, 131072, 0, AMQP_SASL_METHOD_PLAIN, argv[3], argv[4]).reply_type
       == AMQP_RESPONSE_NORMAL, "logging in");
    amqp_channel_open(connection, 1);
    amqp_basic_qos(connection, 1, 0, prefetch, 0);
    amqp_table_entry_t first = {.key = amqp_cstring_bytes("x-stream-offset"),
        .value = {.kind = AMQP_FIELD_KIND_UTF8, .value = {.bytes = amqp_cstring_bytes("first")}}};
    amqp_table_t arguments = {.num_entries = 1, .entries = &first};
    amqp_basic_consume(connection, 1, amqp_cstring_bytes(argv[6]), amqp_empty_bytes, 0, 0, 0, arguments);
    ok(amqp_get_rpc_reply(connection).reply_type == AMQP_RESPONSE_NORMAL, "consuming");
    double began = 0;
    for (long read = 0; read < count; read++) {
        amqp_envelope_t envelope;
        amqp_maybe_release_buffers(connection);
        ok(amqp_consume_message(connection, &envelope, NULL, 0).reply_type == AMQP_RESPONSE_NORMAL, "reading");
        if (read == 0) began = now();
        if (++unacknowledged >= prefetch / 4 || read == count - 1) {
            amqp_basic_ack(connection, 1, envelope.delivery_tag, 1);
            unacknowledged = 0;
        }
        amqp_destroy_envelope(&envelope);
    }
    double took = now() - began;
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    printf("%.6f %.6f %ld\n", took, usage.ru_utime.tv_sec + usage.ru_stime.tv_sec
           + (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6, usage.ru_maxrss);
    amqp_destroy_connection(connection);
    return 0;
}
