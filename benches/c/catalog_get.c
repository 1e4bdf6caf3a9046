/*
 * Times bb_catalog_get: catalog_get CATALOG KEYS
 *
 * KEYS has one key a line, in random order. Each of them is looked up, and then one that differs from it in its last byte and is
 * absent. Prints nanoseconds of CPU time per call, the median of the rounds, and memory and threads.
 */
#define _POSIX_C_SOURCE 200809L
#include "memory.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { ROUNDS = 5 };

static double cpu_time(void)
{
    struct timespec time;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

static int compare(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Looks up all keys, in rounds; returns the median of nanoseconds per call. CPU time is not that of other processes. */
static double look_up(const bb_catalog *catalog, char **keys, size_t count, bb_status expected)
{
    double times[ROUNDS];
    for (int round = 0; round < ROUNDS; round++) {
        const double began = cpu_time();
        for (size_t n = 0; n < count; n++) {
            bb_resolved *found = NULL;
            if (bb_catalog_get(catalog, keys[n], strlen(keys[n]), &found, NULL) != expected)
                exit(fprintf(stderr, "%s: not as expected\n", keys[n]));
            bb_resolved_free(found);
        }
        times[round] = (cpu_time() - began) / (double)count;
    }
    qsort(times, ROUNDS, sizeof times[0], compare);
    return times[ROUNDS / 2];
}

int main(int argc, char **argv)
{
    bb_catalog *catalog = NULL;
    char *line = NULL, **keys = NULL;
    size_t capacity = 0, count = 0, room = 0;
    FILE *file = argc == 3 ? fopen(argv[2], "r") : NULL;

    if (file == NULL)
        return fprintf(stderr, "usage: catalog_get CATALOG KEYS\n"), 2;
    print_memory("before");
    if (bb_catalog_open(argv[1], &catalog, NULL) != BB_OK)
        return fprintf(stderr, "%s: cannot be opened\n", argv[1]), 1;
    print_memory("catalog handle, opened and verified");
    for (ssize_t length; (length = getline(&line, &capacity, file)) > 1;) {
        line[length - 1] = 0;
        if (count == room && (keys = realloc(keys, (room = room * 2 + 1024) * sizeof *keys)) == NULL)
            return 1;
        keys[count++] = strdup(line);
    }
    fclose(file);
    printf("%llu keys, %zu looked up in random order\n", (unsigned long long)bb_catalog_count(catalog), count);
    printf("  present: %.0f ns a call\n", look_up(catalog, keys, count, BB_OK));
    for (size_t n = 0; n < count; n++)
        keys[n][strlen(keys[n]) - 1] = '_';
    printf("  absent: %.0f ns a call\n", look_up(catalog, keys, count, BB_ERR_NOT_FOUND));
    while (count > 0)
        free(keys[--count]);
    free(keys);
    free(line);
    bb_catalog_free(catalog);
    return 0;
}
