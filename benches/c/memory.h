/* Memory and threads of this process, as Linux counts them. */
#include <bucket_brigade.h>
#include <stdio.h>
#include <string.h>

static void print_memory(const char *when)
{
    static const char *const names[] = {"VmRSS:", "RssAnon:", "RssFile:", "Threads:"};
    double values[4] = {0};
    char line[256];
    FILE *status = fopen("/proc/self/status", "r");
    while (status != NULL && fgets(line, sizeof line, status) != NULL)
        for (int n = 0; n < 4; n++)
            if (strncmp(line, names[n], strlen(names[n])) == 0)
                sscanf(line + strlen(names[n]), "%lf", &values[n]);
    if (status != NULL)
        fclose(status);
    printf("  %s: %.1f MiB resident, of which %.1f MiB are its own and %.1f MiB are pages of files; threads: %.0f\n", when,
           values[0] / 1024, values[1] / 1024, values[2] / 1024, values[3]);
}
