/*
 * What a guest must not do to its host: read its environment, take its signals, leave threads behind: guest brigade.toml CATALOG FILE
 */
#define _GNU_SOURCE
#include "check.h"
#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static const char *const known[] = {
    "ALL_PROXY", "all_proxy", "HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "NO_PROXY", "no_proxy", NULL,
};

/* In the place of the C library's: ends the program if it is asked for a variable that the header does not name. */
char *getenv(const char *name)
{
    const size_t length = strlen(name);
    const char *const *found = known;
    while (*found != NULL && strcmp(*found, name) != 0)
        found++;
    if (*found == NULL) {
        fprintf(stderr, "getenv(%s)\n", name);
        abort();
    }
    for (char **entry = environ; *entry != NULL; entry++)
        if (strncmp(*entry, name, length) == 0 && (*entry)[length] == '=')
            return *entry + length + 1;
    return NULL;
}

static int threads(void)
{
    int count = -2; /* . and .. */
    DIR *tasks = opendir("/proc/self/task");
    while (tasks != NULL && readdir(tasks) != NULL)
        count++;
    if (tasks != NULL)
        closedir(tasks);
    return count;
}

/* That SIGTERM, which this thread has blocked and waits for, comes to it and to no thread of the library. */
static void take_signal(void)
{
    const struct timespec soon = {30, 0};
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    CHECK(pthread_sigmask(SIG_BLOCK, &signals, NULL) == 0 && kill(getpid(), SIGTERM) == 0);
    CHECK(sigtimedwait(&signals, NULL, &soon) == SIGTERM);
    CHECK(pthread_sigmask(SIG_UNBLOCK, &signals, NULL) == 0);
}

static pthread_t rescanning;
static volatile sig_atomic_t handled_elsewhere, handled;

static void on_signal(int signal)
{
    (void)signal;
    handled = 1;
    if (!pthread_equal(pthread_self(), rescanning))
        handled_elsewhere = 1;
}

/* The log's callback, on threads of the library: sends a signal to the process. */
static void send_signal(void *user_data, bb_log_level level, const char *message, const char *fields)
{
    sigset_t blocked;
    (void)user_data, (void)level, (void)message, (void)fields;
    CHECK(pthread_sigmask(SIG_BLOCK, NULL, &blocked) == 0 && sigismember(&blocked, SIGUSR1) == 1);
    CHECK(sigismember(&blocked, SIGSEGV) == 0);
    kill(getpid(), SIGUSR1);
}

static int cancel_once(void *user_data, const bb_progress *progress)
{
    int *calls = (int *)user_data;
    (void)progress;
    return (*calls)++ == 0;
}

/* A progress callback cancels its own call and no later one. */
static void cancelled_once(char **argv)
{
    int calls = 0;
    bb_report *report = NULL;
    bb_site *site = NULL;
    bb_config *config = load(argv);
    OK(bb_config_set(config, "force", "true", &error));
    OK(bb_config_on_progress(config, cancel_once, &calls, &error));
    OK(bb_site_open(config, &site, &error));
    bb_config_free(config);
    /* Its first call may be the one at the end, which comes too late for the call itself. */
    for (int round = 0; round < 3; round++) {
        OK(bb_rescan(site, &report, &error));
        CHECK(round == 0 || bb_report_is_complete(report));
        bb_report_free(report);
    }
    CHECK(calls >= 3);
    bb_site_free(site);
}

int main(int argc, char **argv)
{
    bb_config *config = load(argv);
    bb_site *site = NULL, *second = NULL;
    bb_report *report = NULL;
    struct sigaction action;
    CHECK(argc == 4 && setenv("HTTPS_PROXY", "http://127.0.0.1:1", 1) == 0 && setenv("HTTP_PROXY", "http://127.0.0.1:1", 1) == 0);
    CHECK(setenv("RUST_MIN_STACK", "99999999999999", 1) == 0 && setenv("RAYON_NUM_THREADS", "1", 1) == 0);

    OK(bb_config_on_log(config, BB_LOG_INFO, send_signal, NULL, &error));
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
    rescanning = pthread_self();
    OK(bb_site_open(config, &site, &error));
    take_signal();
    const int open = threads();
    /* It fails, and takes its threads along. */
    FAILS(BB_ERR_CACHE_LOCKED, bb_site_open(config, &second, &error));
    CHECK(threads() == open);

    OK(bb_rescan(site, &report, &error));
    CHECK(bb_report_is_complete(report) && handled && !handled_elsewhere);
    bb_report_free(report);
    take_signal();
    OK(bb_site_close(site, &error));
    bb_site_free(site);

    /* Nobody waits for what the configuration lacks, either. */
    OK(bb_config_set(config, "root", "/nowhere\xff\xfe", &error));
    char *root = NULL;
    OK(bb_config_get(config, "root", &root, &error));
    CHECK(strcmp(root, "/nowhere\xff\xfe") == 0);
    bb_string_free(root);
    OK(bb_config_set(config, "batch_size", "3", &error));
    bb_config_free(config);
    cancelled_once(argv);
    CHECK(threads() <= 1);
    return 0;
}
