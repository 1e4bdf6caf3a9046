/*
 * Forks while other threads are inside calls. The child is told at once, and what works there waits for no thread of its parent. As process 1
 * of a PID namespace it makes another one, in which its child is process 1 as well: fork_busy brigade.toml CATALOG FILE
 */
#define _GNU_SOURCE
#include "check.h"
#include <pthread.h>
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

enum { FORKS = 30 };

static bb_site *site;
static bb_report *plan;
static int stopping;

static void *ask(void *unused)
{
    while (!__atomic_load_n(&stopping, __ATOMIC_SEQ_CST)) {
        bb_summary *summary = NULL;
        bb_report *report = NULL;
        OK(bb_site_summary(site, &summary, &error));
        OK(bb_plan(site, &report, &error));
        bb_summary_free(summary);
        bb_report_free(report);
    }
    return unused;
}

static void *make_json(void *unused)
{
    CHECK(bb_report_json(plan) != NULL && bb_report_item(plan, BB_LIST_UPLOADED, 0) != NULL);
    return unused;
}

/* Only there to end a child that hangs. */
static void child(void)
{
    bb_report *report = NULL;
    alarm(60);
    FAILS(BB_ERR_FORKED, bb_rescan(site, &report, &error));
    FAILS(BB_ERR_FORKED, bb_site_cancel(site, &error));
    FAILS(BB_ERR_FORKED, bb_site_close(site, &error));
    CHECK(plan == NULL || bb_report_json(plan) != NULL);
    CHECK(plan == NULL || bb_report_item(plan, BB_LIST_UPLOADED, 0) != NULL);
    bb_site_free(site);
    _exit(0);
}

static void fork_once(void)
{
    int status = -1;
    const pid_t forked = fork();
    if (forked == 0)
        child();
    CHECK(waitpid(forked, &status, 0) == forked && WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

int main(int argc, char **argv)
{
    pthread_t thread;
    CHECK(argc == 4);
    site = open_site(argv);
    if (getpid() == 1) {
        CHECK(unshare(CLONE_NEWPID) == 0);
        fork_once();
        bb_site_free(site);
        return 0;
    }
    CHECK(pthread_create(&thread, NULL, ask, NULL) == 0);
    for (int number = 0; number < FORKS; number++)
        fork_once();
    __atomic_store_n(&stopping, 1, __ATOMIC_SEQ_CST);
    CHECK(pthread_join(thread, NULL) == 0);

    for (int number = 0; number < FORKS; number++) {
        OK(bb_plan(site, &plan, &error));
        CHECK(pthread_create(&thread, NULL, make_json, NULL) == 0);
        usleep((useconds_t)(100 * number));
        fork_once();
        CHECK(pthread_join(thread, NULL) == 0);
        bb_report_free(plan);
    }
    OK(bb_site_close(site, &error));
    bb_site_free(site);
    return 0;
}
