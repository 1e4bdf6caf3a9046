/*
 * The store closes connections in the middle of bodies. SIGPIPE is what it is in a program that never heard of it:
 * sigpipe brigade.toml CATALOG FILE
 */
#define _POSIX_C_SOURCE 200809L
#include "check.h"
#include <signal.h>

int main(int argc, char **argv)
{
    bb_report *report = NULL;
    struct sigaction before;
    CHECK(argc == 4 && signal(SIGPIPE, SIG_DFL) != SIG_ERR);
    bb_site *site = open_site(argv);
    OK(bb_rescan(site, &report, &error));
    puts(bb_report_json(report));
    CHECK(bb_report_is_complete(report) && bb_report_count(report, BB_COUNT_RETRIES) > 0);
    bb_report_free(report);
    OK(bb_site_close(site, &error));
    bb_site_free(site);
    CHECK(sigaction(SIGPIPE, NULL, &before) == 0 && before.sa_handler == SIG_DFL);
    return 0;
}
