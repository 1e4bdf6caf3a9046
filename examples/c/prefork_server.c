/*
 * An old-fashioned server: prefork_server brigade.toml CATALOG PORT WORKERS SECONDS
 *
 * The parent publishes the tree every SECONDS. Its workers, one process each, answer GET /KEY with a redirect to where the key is to
 * be read now. They read the catalog, which the parent's rescans write, and need no lock, no request and no thread for it.
 */
#define _POSIX_C_SOURCE 200809L
#include <arpa/inet.h>
#include <bucket_brigade.h>
#include <ctype.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Turns %41 into A, in place. Returns the new length. */
static size_t decode(char *text, size_t length)
{
    size_t to = 0;
    for (size_t from = 0; from < length; from++, to++) {
        text[to] = text[from];
        if (text[from] == '%' && from + 2 < length && isxdigit((unsigned char)text[from + 1]) &&
            isxdigit((unsigned char)text[from + 2])) {
            const char hex[3] = {text[from + 1], text[from + 2], 0};
            text[to] = (char)strtol(hex, NULL, 16);
            from += 2;
        }
    }
    return to;
}

/* Answers one request, whose head is `head`. */
static int answer(int client, char *head, const bb_catalog *catalog)
{
    char reply[8192];
    int length = 0;
    bb_resolved *found = NULL;
    char *path = strncmp(head, "GET /", 5) == 0 ? head + 5 : NULL;
    const size_t path_length = path ? decode(path, strcspn(path, " ?\r\n")) : 0;
    /* Without a catalog, or with a damaged one, nobody knows. */
    const bb_status status = path ? bb_catalog_get(catalog, path, path_length, &found, NULL) : BB_OK;

    if (path == NULL)
        length = snprintf(reply, sizeof reply, "HTTP/1.1 405 Method Not Allowed\r\nAllow: GET\r\nContent-Length: 0\r\n\r\n");
    else if (status == BB_OK)
        length = snprintf(reply, sizeof reply, "HTTP/1.1 302 Found\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n",
                          bb_resolved_url(found));
    else if (status == BB_ERR_NOT_FOUND && !bb_catalog_is_damaged(catalog))
        length = snprintf(reply, sizeof reply, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
    else
        length = snprintf(reply, sizeof reply, "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n");
    bb_resolved_free(found);
    /* A client that is gone is no reason for SIGPIPE. */
    return length > 0 && (size_t)length < sizeof reply && send(client, reply, (size_t)length, MSG_NOSIGNAL) == length;
}

/* Returns the catalog, looked at once a second. It appears with the first rescan, and newer versions with later ones. */
static const bb_catalog *current_catalog(const char *path)
{
    static bb_catalog *catalog;
    static time_t looked;
    const time_t now = time(NULL);
    if (now == looked)
        return catalog;
    looked = now;
    /* On an error the current version stays. */
    if (catalog == NULL)
        bb_catalog_open(path, &catalog, NULL);
    else
        bb_catalog_refresh(catalog, NULL, NULL);
    return catalog;
}

/* Answers the requests of a connection, one after another. */
static void serve(int client, const char *path)
{
    char buffer[16384];
    size_t filled = 0;
    while (filled < sizeof buffer - 1) {
        const ssize_t got = read(client, buffer + filled, sizeof buffer - 1 - filled);
        if (got <= 0)
            return;
        buffer[filled += (size_t)got] = 0;
        for (char *end; (end = strstr(buffer, "\r\n\r\n")) != NULL;) {
            if (!answer(client, buffer, current_catalog(path)))
                return;
            filled -= (size_t)(end + 4 - buffer);
            memmove(buffer, end + 4, filled + 1);
        }
    }
}

/* A worker: accepts until SIGTERM ends it. */
static void work(int listener, const char *path, const sigset_t *signals)
{
    sigprocmask(SIG_UNBLOCK, signals, NULL);
    for (;;) {
        const struct timeval patience = {10, 0};
        const int one = 1, client = accept(listener, NULL, NULL);
        if (client < 0)
            continue;
        setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
        setsockopt(client, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
        setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        serve(client, path);
        close(client);
    }
}

/* Forks a worker; returns its process ID, or -1. */
static pid_t fork_worker(int listener, const char *path, const sigset_t *signals)
{
    const pid_t worker = fork();
    if (worker == 0)
        work(listener, path, signals);
    return worker;
}

/* Publishes once. */
static void publish(const bb_site *site)
{
    bb_report *report = NULL;
    bb_error *error = NULL;
    if (bb_rescan(site, &report, &error))
        fprintf(stderr, "rescan: %s\n", bb_error_text(error));
    else
        fprintf(stderr, "rescan: %s, %llu uploaded\n", bb_outcome_name(bb_report_outcome(report)),
                (unsigned long long)bb_report_count(report, BB_COUNT_UPLOADED));
    bb_report_free(report);
    bb_error_free(error);
}

static int listen_on(const char *port)
{
    const int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address;
    memset(&address, 0, sizeof address);
    address.sin_family = AF_INET;
    address.sin_port = htons((unsigned short)atoi(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) != 0 || listen(listener, 128) != 0) {
        perror("listen");
        exit(1);
    }
    return listener;
}

int main(int argc, char **argv)
{
    bb_config *config = NULL;
    bb_site *site = NULL;
    bb_error *error = NULL;
    pid_t workers[64];
    int started = 0;
    sigset_t signals;

    if (argc != 6)
        return fprintf(stderr, "usage: prefork_server brigade.toml CATALOG PORT WORKERS SECONDS\n"), 2;
    const int wanted = atoi(argv[4]) < 64 ? atoi(argv[4]) : 64;
    const struct timespec interval = {atoi(argv[5]), 0};

    /* The parent asks for these between rescans. */
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigprocmask(SIG_BLOCK, &signals, NULL);

    const int listener = listen_on(argv[3]);
    for (; started < wanted; started++)
        if ((workers[started] = fork_worker(listener, argv[2], &signals)) < 0)
            break;

    /* After the fork: the site has threads. */
    if (bb_config_load(argv[1], NULL, &config, &error) || bb_site_open(config, &site, &error))
        fprintf(stderr, "%s\n", bb_error_text(error));
    const int failed = site == NULL;
    while (!failed) {
        publish(site);
        /* A worker that ended is forked again. It inherits the site's memory, and has no use for it. */
        for (int number = 0; number < started; number++)
            if (waitpid(workers[number], NULL, WNOHANG) == workers[number])
                workers[number] = fork_worker(listener, argv[2], &signals);
        if (sigtimedwait(&signals, NULL, &interval) > 0)
            break;
    }
    bb_site_free(site);
    bb_config_free(config);
    bb_error_free(error);
    while (started-- > 0)
        if (workers[started] > 0)
            kill(workers[started], SIGTERM);
    while (wait(NULL) > 0)
        continue;
    return failed;
}
