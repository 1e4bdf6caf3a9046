/*
 * An Apache httpd 2.4 module: answers GET /KEY with a redirect to where the key is to be read now.
 *
 *     LoadModule brigade_module modules/mod_brigade.so
 *     <Location "/files/">
 *         SetHandler brigade
 *         BrigadeCatalog /var/lib/game/live.cache.catalog
 *     </Location>
 *
 * The key is the path below the location, or the whole path if BrigadeCatalog stands outside of one. Something else publishes, such
 * as `brigade sync` on a timer, and writes the catalog. Each child maps that file, once for all its threads, and looks once a second
 * for a newer version. It must be able to read the file, and to pass through its folder. Keys with an encoded slash need
 * AllowEncodedSlashes On. `make mod_brigade.so` builds it.
 */
#include <httpd.h>
#include <http_config.h>
#include <http_log.h>
#include <http_request.h>
#include <apr_fnmatch.h>
#include <apr_strings.h>
#include <apr_thread_mutex.h>
#include <bucket_brigade.h>
#include <string.h>
#include <strings.h>

APLOG_USE_MODULE(brigade);

/* A catalog, as a directive names it. What is below `next` belongs to the child. */
typedef struct source {
    const char *path;
    struct source *next;
    apr_thread_mutex_t *lock;
    bb_catalog *catalog;
    apr_time_t looked;
    bb_status failed;
} source;

/* What holds for a location. */
typedef struct {
    const char *below;
    source *source;
} settings;

static source *sources;

/* Opens the catalog, or looks for a newer version of it. On an error the current version stays. */
static void refresh(source *source, server_rec *server)
{
    bb_error *error = NULL;
    const bb_status failed = source->catalog == NULL ? bb_catalog_open(source->path, &source->catalog, &error)
                                                     : bb_catalog_refresh(source->catalog, NULL, &error);
    /* Said once, and not each second. */
    if (failed && failed != source->failed)
        ap_log_error(APLOG_MARK, APLOG_ERR, 0, server, "brigade: %s", bb_error_text(error));
    source->failed = failed;
    bb_error_free(error);
}

/* Looks up a key. The lock is for threads, of which prefork has none: a look-up takes less than a microsecond. */
static bb_status look_up(source *source, request_rec *r, const char *key, bb_resolved **found)
{
    bb_error *error = NULL;
    bb_status status = BB_ERR_UNAVAILABLE;

    apr_thread_mutex_lock(source->lock);
    if (r->request_time - source->looked >= apr_time_from_sec(1)) {
        source->looked = r->request_time;
        refresh(source, r->server);
    }
    if (source->catalog != NULL) {
        status = bb_catalog_get(source->catalog, key, strlen(key), found, &error);
        if (status == BB_ERR_NOT_FOUND && bb_catalog_is_damaged(source->catalog))
            status = BB_ERR_CACHE_DAMAGED;
    }
    apr_thread_mutex_unlock(source->lock);
    if (error != NULL || status == BB_ERR_CACHE_DAMAGED)
        ap_log_rerror(APLOG_MARK, APLOG_ERR, 0, r, "brigade: %s: %s", source->path,
                      error ? bb_error_text(error) : bb_status_name(status));
    bb_error_free(error);
    return status;
}

/* Answers a request. httpd has decoded its path, and has removed dot segments. */
static int answer(request_rec *r)
{
    const settings *settings = ap_get_module_config(r->per_dir_config, &brigade_module);
    bb_resolved *found = NULL;

    if (r->handler == NULL || strcmp(r->handler, "brigade") != 0)
        return DECLINED;
    if (settings->source == NULL) {
        ap_log_rerror(APLOG_MARK, APLOG_ERR, 0, r, "brigade: there is no BrigadeCatalog for %s", r->uri);
        return HTTP_INTERNAL_SERVER_ERROR;
    }
    ap_allow_standard_methods(r, REPLACE_ALLOW, M_GET, -1);
    if (r->method_number != M_GET)
        return HTTP_METHOD_NOT_ALLOWED;

    const char *key = r->uri + (settings->below ? strlen(settings->below) : 0);
    const bb_status status = look_up(settings->source, r, key + strspn(key, "/"), &found);
    if (status == BB_ERR_NOT_FOUND)
        return HTTP_NOT_FOUND;
    if (status != BB_OK) {
        apr_table_setn(r->err_headers_out, "Retry-After", "1");
        return HTTP_SERVICE_UNAVAILABLE;
    }
    apr_table_set(r->headers_out, "Location", bb_resolved_url(found));
    apr_table_setn(r->err_headers_out, "Cache-Control", "no-store");
    bb_resolved_free(found);
    return HTTP_MOVED_TEMPORARILY;
}

static apr_status_t forget(void *data)
{
    source *source = data;
    bb_catalog_free(source->catalog);
    source->catalog = NULL;
    return APR_SUCCESS;
}

/* Opens the catalogs in a new child, so that its first request need not wait for that. */
static void begin_child(apr_pool_t *pool, server_rec *server)
{
    for (source *source = sources; source != NULL; source = source->next) {
        apr_thread_mutex_create(&source->lock, APR_THREAD_MUTEX_DEFAULT, pool);
        apr_pool_cleanup_register(pool, source, forget, apr_pool_cleanup_null);
        source->looked = apr_time_now();
        refresh(source, server);
    }
}

/* The configuration is read anew, when httpd starts twice. */
static int begin_configuration(apr_pool_t *pool, apr_pool_t *log, apr_pool_t *temporary)
{
    (void)pool, (void)log, (void)temporary;
    sources = NULL;
    return OK;
}

static void *create(apr_pool_t *pool, char *location)
{
    settings *settings = apr_pcalloc(pool, sizeof *settings);
    settings->below = apr_pstrdup(pool, location);
    return settings;
}

static void *merge(apr_pool_t *pool, void *outer, void *inner)
{
    (void)pool;
    return ((settings *)inner)->source ? inner : outer;
}

static const char *set_catalog(cmd_parms *command, void *location, const char *path)
{
    settings *settings = location;
    const char *misplaced = ap_check_cmd_context(command, NOT_IN_DIRECTORY | NOT_IN_FILES | NOT_IN_HTACCESS | NOT_IN_PROXY);
    const ap_directive_t *section = command->directive->parent;
    if (misplaced != NULL)
        return misplaced;
    if (settings->below != NULL && (strcasecmp(section->directive, "<Location") != 0 || section->args[0] == '~' ||
                                    apr_fnmatch_test(settings->below)))
        return "BrigadeCatalog needs a <Location> without patterns, which tells where keys begin";
    const char *named = ap_server_root_relative(command->pool, path);
    if (named == NULL)
        return apr_pstrcat(command->pool, "BrigadeCatalog: not a path: ", path, NULL);
    source *source = sources;
    while (source != NULL && strcmp(source->path, named) != 0)
        source = source->next;
    if (source == NULL) {
        source = apr_pcalloc(command->pool, sizeof *source);
        source->path = named;
        source->next = sources;
        sources = source;
    }
    settings->source = source;
    return NULL;
}

static const command_rec commands[] = {
    AP_INIT_TAKE1("BrigadeCatalog", set_catalog, NULL, RSRC_CONF | ACCESS_CONF, "the catalog to redirect from: CACHE.catalog"),
    {NULL, {NULL}, NULL, 0, RAW_ARGS, NULL},
};

static void register_hooks(apr_pool_t *pool)
{
    (void)pool;
    ap_hook_pre_config(begin_configuration, NULL, NULL, APR_HOOK_MIDDLE);
    ap_hook_child_init(begin_child, NULL, NULL, APR_HOOK_MIDDLE);
    ap_hook_handler(answer, NULL, NULL, APR_HOOK_MIDDLE);
}

module AP_MODULE_DECLARE_DATA brigade_module = {
    STANDARD20_MODULE_STUFF, create, merge, NULL, NULL, commands, register_hooks, 0,
};
