/* What a C program takes from a stream: stream_reader HOST PORT USER PASSWORD VHOST QUEUE COUNT PREFETCH EVERY
   Reads from the first message on, acknowledges every so many as our reader does, does nothing with what it reads. Prints what
   bench/spans.py prints, then waits for the end of its input. */
#include <amqp.h>
#include <amqp_tcp_socket.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static double seconds(clockid_t clock) {
    struct timespec at;
    clock_gettime(clock, &at);
    return at.tv_sec + at.tv_nsec / 1e9;
}

static void check(int good, const char *what) {
    if (!good) { fprintf(stderr, "stream_reader: %s failed\n", what); exit(1); }
}

int main(int argc, char **argv) {
    check(argc == 10, "reading 9 arguments");
    long count = atol(argv[7]), prefetch = atol(argv[8]), every = atol(argv[9]), unacknowledged = 0;
    amqp_connection_state_t connection = amqp_new_connection();
    check(amqp_socket_open(amqp_tcp_socket_new(connection), argv[1], atoi(argv[2])) == 0, "connecting");
    check(amqp_login(connection, argv[5], 0, 131072, 0, AMQP_SASL_METHOD_PLAIN, argv[3], argv[4]).reply_type
          == AMQP_RESPONSE_NORMAL, "logging in");
    amqp_channel_open(connection, 1);
    amqp_basic_qos(connection, 1, 0, prefetch, 0);
    amqp_table_entry_t first = {.key = amqp_cstring_bytes("x-stream-offset"),
        .value = {.kind = AMQP_FIELD_KIND_UTF8, .value = {.bytes = amqp_cstring_bytes("first")}}};
    amqp_table_t arguments = {.num_entries = 1, .entries = &first};
    amqp_basic_consume(connection, 1, amqp_cstring_bytes(argv[6]), amqp_empty_bytes, 0, 0, 0, arguments);
    check(amqp_get_rpc_reply(connection).reply_type == AMQP_RESPONSE_NORMAL, "consuming");
    double began = 0, cpu = 0;
    for (long read = 0; read < count; read++) {
        amqp_envelope_t envelope;
        amqp_maybe_release_buffers(connection);
        check(amqp_consume_message(connection, &envelope, NULL, 0).reply_type == AMQP_RESPONSE_NORMAL, "reading");
        if (read == 0) { began = seconds(CLOCK_MONOTONIC); cpu = seconds(CLOCK_PROCESS_CPUTIME_ID); }
        if (++unacknowledged >= every) {
            amqp_basic_ack(connection, 1, envelope.delivery_tag, 1);
            unacknowledged = 0;
        }
        amqp_destroy_envelope(&envelope);
    }
    printf("measured %.6f %.6f %.6f\n", began, seconds(CLOCK_MONOTONIC), seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu);
    fflush(stdout);
    while (getchar() != EOF) {}
    amqp_destroy_connection(connection);
    return 0;
}
