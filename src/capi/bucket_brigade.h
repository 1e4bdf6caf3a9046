/*
 * bucket-brigade: publishes a directory tree to S3-compatible storage and keeps it published, by calls that block.
 *
 *     bb_config *config = NULL;
 *     bb_site *site = NULL;
 *     bb_report *report = NULL;
 *     bb_error *error = NULL;
 *     if (bb_config_load("brigade.toml", NULL, &config, &error) || bb_site_open(config, &site, &error) ||
 *         bb_rescan(site, &report, &error))
 *         fprintf(stderr, "%s\n", bb_error_text(error));
 *     else
 *         puts(bb_report_json(report));
 *
 * These rules hold for every function, unless its comment says otherwise.
 *
 * Status. A function that can fail returns a bb_status, of which only BB_OK is 0. A function that only reads from a
 *   handle cannot fail, and returns the value. Numbers are never used again for something else; functions are never
 *   removed or changed, only added.
 * Results come through pointers, which are written on success only. A pointer for a result must not be NULL, unless
 *   its comment allows it.
 * Errors. The last parameter, `bb_error **error`, may be NULL. If the status is an error, it receives one: free it
 *   with bb_error_free. What was in it before is overwritten, not freed. Two statuses are answers and come without an
 *   error: BB_ERR_NOT_FOUND of bb_resolve and bb_catalog_get, and BB_DONE of bb_iter_next.
 * Handles are opaque. Each has one owner, who frees it once, with the function of its type: a bb_site with
 *   bb_site_free. Freeing NULL is fine. No handle needs another one: they may be freed in any order. A const pointer to
 *   a handle that a function returns is lent: it lives as long as what it came from, and is not freed.
 * Close reports what free cannot: call bb_site_close, look at its status, and call bb_site_free then.
 * Texts that are passed in end with a NUL and are UTF-8. Paths and values of settings may have any bytes. Where a
 *   parameter `…_length` follows, the text is that many bytes and needs no NUL; with BB_NUL_TERMINATED it ends with one.
 *   Nothing that is passed in is kept, except user_data. Texts that are returned end with a NUL. They are UTF-8, except
 *   paths. A `const char *` lives as long as its handle. A `char *` belongs to the caller: bb_string_free.
 * NULL for a handle, a text or a place that is needed is BB_ERR_ARGUMENT. A function that only reads returns 0, false
 *   or NULL for a NULL handle.
 * Threads. Any number of threads may use a bb_site at once, and read a report, an error, an answer, a list, a summary
 *   or a state. A bb_config and a bb_iter belong to one thread at a time. Any number of threads may read a bb_catalog,
 *   unless one of them refreshes it. Nobody may use a handle while or after it is freed.
 * Panics do not cross: they become BB_ERR_PANICKED. Rust's panic hook may have written to stderr before.
 * A good guest. The library has nothing to initialise and no global state. It installs no logger and no signal handler,
 *   and never exits. It uses no environment variable, except through settings and functions named for it. (When a site
 *   is opened, its HTTP client looks at HTTP_PROXY and the like, and drops what it finds: do not change the environment
 *   in another thread meanwhile.) Its threads belong to a bb_site, and have ended when bb_site_close returns. They get
 *   none of the host's signals. SIGPIPE may be left as it is.
 * Fork. Open a bb_site after the fork, in the process that publishes. In a process that was forked from the one that
 *   opened it, every call on it is BB_ERR_FORKED at once, and freeing it leaves its memory as it is. Everything else
 *   goes on working in every process, a bb_catalog above all. A child that lives on shares the file of the cache: if the
 *   parent is killed, the cache stays locked until that child ends. Fork workers before the site is opened.
 */


#ifndef BUCKET_BRIGADE_H
#define BUCKET_BRIGADE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The length of a text that ends with a NUL. */
#define BB_NUL_TERMINATED ((size_t)-1)

// The result of a function. Numbers are explicit and are never used again for something else. Others may be
// added: treat a number that you do not know as an error.
enum bb_status
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  // Done. Results were written through their pointers.
  BB_OK = 0,
  // A setting is missing or wrong; the text names it.
  BB_ERR_CONFIG = 1,
  // A text is not a valid object key.
  BB_ERR_INVALID_KEY = 2,
  // There is no such operation on this destination.
  BB_ERR_UNSUPPORTED = 3,
  // The host name does not resolve, or no connection could be made.
  BB_ERR_CONNECT = 10,
  // No byte moved within the idle timeout, or a request exceeded its deadline.
  BB_ERR_TIMEOUT = 11,
  // The server's certificate was not accepted.
  BB_ERR_TLS = 12,
  // The connection broke after it was made.
  BB_ERR_NETWORK = 13,
  // Too many connections failed in a row.
  BB_ERR_UNAVAILABLE = 14,
  // The answer violates the protocol.
  BB_ERR_PROTOCOL = 15,
  // The credentials were refused or could not be fetched.
  BB_ERR_CREDENTIALS = 20,
  // The credentials are valid, but are not allowed to do this.
  BB_ERR_ACCESS_DENIED = 21,
  // The bucket does not exist.
  BB_ERR_BUCKET_MISSING = 22,
  // There is no such object, key, upload or state.
  BB_ERR_NOT_FOUND = 23,
  // The bucket is in another region or behind another endpoint.
  BB_ERR_REGION = 24,
  // The store asks for fewer requests.
  BB_ERR_THROTTLED = 25,
  // The store failed (5xx).
  BB_ERR_SERVER = 26,
  // The store rejected the request (any other 4xx).
  BB_ERR_REJECTED = 27,
  // This machine's clock differs too much from the store's.
  BB_ERR_CLOCK_SKEW = 28,
  // The store received other bytes than those that were hashed.
  BB_ERR_INTEGRITY = 29,
  // Somebody else changed the object since it was published.
  BB_ERR_CONFLICT = 30,
  // The file changed while it was being published.
  BB_ERR_SOURCE_CHANGED = 40,
  // The file no longer exists.
  BB_ERR_SOURCE_VANISHED = 41,
  // The file or directory cannot be read.
  BB_ERR_SOURCE_UNREADABLE = 42,
  // The object is larger than the store or this version supports.
  BB_ERR_TOO_LARGE = 43,
  // `bb_site_cancel` was called.
  BB_ERR_CANCELLED = 50,
  // The deadline has passed.
  BB_ERR_DEADLINE = 51,
  // Another run has taken over.
  BB_ERR_SUPERSEDED = 52,
  // The cache or the catalog could not be read or written.
  BB_ERR_CACHE = 60,
  // Another call or process is using the cache.
  BB_ERR_CACHE_LOCKED = 61,
  // The cache belongs to another destination.
  BB_ERR_CACHE_FOREIGN = 62,
  // The cache or the catalog is damaged, or was written by a newer version.
  BB_ERR_CACHE_DAMAGED = 63,
  // The root does not exist.
  BB_ERR_ROOT_MISSING = 70,
  // The root is empty although files were published from it.
  BB_ERR_ROOT_EMPTY = 71,
  // The prefix already contains objects, and `first_run` says to refuse that.
  BB_ERR_FIRST_RUN_REFUSED = 72,
  // The state in the bucket is damaged, newer, or that of another place or tree.
  BB_ERR_STATE_DAMAGED = 73,
  // The library, or a callback below it, panicked. No panic crosses the border.
  BB_ERR_PANICKED = 80,
  // Anything else; the text says what.
  BB_ERR_OTHER = 99,
  // A handle with threads was used in a process that was forked from the one that opened it.
  BB_ERR_FORKED = 100,
  // An argument is NULL, not UTF-8, or not a number of its kind; the text names it.
  BB_ERR_ARGUMENT = 101,
  // The site was closed.
  BB_ERR_CLOSED = 102,
  // Another thread is inside a call on the site that is to be closed.
  BB_ERR_BUSY = 103,
  // `bb_iter_next`: there are no more keys. Not an error.
  BB_DONE = 200,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum bb_status bb_status;
#else
typedef uint32_t bb_status;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// The severity of a record of the log.
enum bb_log_level
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  // Something failed as a whole.
  BB_LOG_ERROR = 1,
  // Somebody should look at it.
  BB_LOG_WARN = 2,
  // Each upload and delete, and the end of each run.
  BB_LOG_INFO = 3,
  // Each request.
  BB_LOG_DEBUG = 4,
  // Everything.
  BB_LOG_TRACE = 5,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum bb_log_level bb_log_level;
#else
typedef uint32_t bb_log_level;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// The outcome of a rescan.
enum bb_outcome
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  // There is no report.
  BB_OUTCOME_NONE = 0,
  // There was nothing to do.
  BB_OUTCOME_UNCHANGED = 1,
  // Everything was done.
  BB_OUTCOME_PUBLISHED = 2,
  // Something failed, was refused or was skipped, and stays pending.
  BB_OUTCOME_PARTIAL = 3,
  // The store was unavailable. The changes on disk are recorded, and nothing was published.
  BB_OUTCOME_LOCAL_ONLY = 4,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum bb_outcome bb_outcome;
#else
typedef uint32_t bb_outcome;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// The reason why a rescan stopped before everything was tried.
enum bb_stop_reason
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  // It did not stop early.
  BB_STOP_NONE = 0,
  // It was cancelled.
  BB_STOP_CANCELLED = 1,
  // The deadline passed.
  BB_STOP_DEADLINE = 2,
  // Too many files are gone: nothing was deleted. `max_delete` and `allow_empty` allow it.
  BB_STOP_DELETES_REFUSED = 3,
  // The store refused the credentials.
  BB_STOP_CREDENTIALS = 4,
  // The store was unavailable.
  BB_STOP_UNAVAILABLE = 5,
  // Another run is publishing, or a newer build was published.
  BB_STOP_CLAIMED = 6,
  // Another run has taken over.
  BB_STOP_SUPERSEDED = 7,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum bb_stop_reason bb_stop_reason;
#else
typedef uint32_t bb_stop_reason;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// The work that is left for a file.
enum bb_pending_kind
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  // No such file in the list.
  BB_PENDING_NONE = 0,
  // It is not published yet.
  BB_PENDING_ADDED = 1,
  // It changed, or may have changed.
  BB_PENDING_MODIFIED = 2,
  // It is gone; its object is to be deleted.
  BB_PENDING_REMOVED = 3,
  // A request for it got no answer, and it is gone.
  BB_PENDING_UNSETTLED = 4,
  // Its object is to get other headers.
  BB_PENDING_HEADERS = 5,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum bb_pending_kind bb_pending_kind;
#else
typedef uint32_t bb_pending_kind;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// The state of a key.
enum bb_key_state
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  // Not known.
  BB_KEY_UNKNOWN = 0,
  // The store holds the version that was on disk at the last scan.
  BB_KEY_PUBLISHED = 1,
  // The store does not hold the version on disk; the URL is that of `fallback_url`, or leads to nothing
  // yet.
  BB_KEY_PENDING = 2,
  // The store holds an older version, which the URL serves.
  BB_KEY_STALE = 3,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum bb_key_state bb_key_state;
#else
typedef uint32_t bb_key_state;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// A count of a report. Counts are always whole, also where a list ends after 100,000 items.
enum bb_count
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  // Files found.
  BB_COUNT_SCANNED = 1,
  // Files whose published version is up to date.
  BB_COUNT_UNCHANGED = 2,
  // Files uploaded; of a plan, to be uploaded.
  BB_COUNT_UPLOADED = 3,
  // Their bytes.
  BB_COUNT_UPLOADED_BYTES = 4,
  // Objects that got other headers by a copy in place.
  BB_COUNT_HEADERS_UPDATED = 5,
  // Objects that held the content of their files already, and were taken over.
  BB_COUNT_ADOPTED = 6,
  // Their bytes.
  BB_COUNT_ADOPTED_BYTES = 7,
  // Objects deleted; of a plan, to be deleted.
  BB_COUNT_DELETED = 8,
  // Failures.
  BB_COUNT_FAILED = 9,
  // Objects kept although their files were not found or are left out now.
  BB_COUNT_KEPT = 10,
  // Directory entries that are not published, such as symbolic links.
  BB_COUNT_SKIPPED = 11,
  // Keys with work left to do.
  BB_COUNT_PENDING = 12,
  // Multipart uploads that are left open.
  BB_COUNT_OPEN_UPLOADS = 13,
  // Requests sent.
  BB_COUNT_REQUESTS = 14,
  // Retries of requests.
  BB_COUNT_RETRIES = 15,
  // Milliseconds that it took.
  BB_COUNT_ELAPSED_MS = 16,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum bb_count bb_count;
#else
typedef uint32_t bb_count;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// A list of keys in a report.
enum bb_list
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  // Files uploaded; of a plan, to be uploaded.
  BB_LIST_UPLOADED = 1,
  // Objects deleted; of a plan, to be deleted.
  BB_LIST_DELETED = 2,
  // Objects that got other headers.
  BB_LIST_HEADERS_UPDATED = 3,
  // Objects that were taken over.
  BB_LIST_ADOPTED = 4,
  // Objects kept although their files were not found.
  BB_LIST_KEPT = 5,
  // Directory entries that are not published, each with the reason.
  BB_LIST_SKIPPED = 6,
  // URLs of the files uploaded, in the order of `BB_LIST_UPLOADED`.
  BB_LIST_UPLOADED_URLS = 7,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum bb_list bb_list;
#else
typedef uint32_t bb_list;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// A counter of a site. They begin with 0 when it is opened and only grow, except `BB_METRIC_PENDING_FILES`
// and `BB_METRIC_LAST_RESCAN_MS`.
enum bb_metric
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  // Files uploaded and acknowledged.
  BB_METRIC_UPLOADS = 1,
  // Files whose upload failed after all retries.
  BB_METRIC_UPLOADS_FAILED = 2,
  // Bytes of the files uploaded and acknowledged.
  BB_METRIC_UPLOAD_BYTES = 3,
  // Objects that got other headers by a copy in place.
  BB_METRIC_HEADERS_UPDATED = 4,
  // Objects deleted and acknowledged.
  BB_METRIC_DELETES = 5,
  // Objects whose delete failed after all retries.
  BB_METRIC_DELETES_FAILED = 6,
  // Retries of requests.
  BB_METRIC_RETRIES = 7,
  // Requests started, retries included.
  BB_METRIC_REQUESTS = 8,
  // Connections opened.
  BB_METRIC_CONNECTIONS = 9,
  // Look-ups of host names.
  BB_METRIC_LOOKUPS = 10,
  // Bytes written to sockets, headers and TLS included.
  BB_METRIC_BYTES_SENT = 11,
  // Writes to sockets.
  BB_METRIC_SENDS = 12,
  // Bytes read from sockets, headers and TLS included.
  BB_METRIC_BYTES_RECEIVED = 13,
  // Transactions committed to the cache.
  BB_METRIC_COMMITS = 14,
  // Bytes of files read for hashing.
  BB_METRIC_BYTES_HASHED = 15,
  // Rescans that ended, in whatever way.
  BB_METRIC_RESCANS = 16,
  // Files pending after the last rescan (a gauge).
  BB_METRIC_PENDING_FILES = 17,
  // Milliseconds spent in rescans.
  BB_METRIC_RESCAN_MS = 18,
  // Milliseconds that the last rescan took.
  BB_METRIC_LAST_RESCAN_MS = 19,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum bb_metric bb_metric;
#else
typedef uint32_t bb_metric;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// A count of `bb_progress`.
enum bb_progress_value
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  // Files to be uploaded, or whose objects get other headers.
  BB_PROGRESS_FILES_TOTAL = 1,
  // Files that are finished.
  BB_PROGRESS_FILES_DONE = 2,
  // Files that failed.
  BB_PROGRESS_FILES_FAILED = 3,
  // Bytes of the files to be uploaded.
  BB_PROGRESS_BYTES_TOTAL = 4,
  // Bytes that are sent, or were there already.
  BB_PROGRESS_BYTES_DONE = 5,
  // Bytes read for hashing.
  BB_PROGRESS_BYTES_HASHED = 6,
  // Bytes of files written to connections.
  BB_PROGRESS_BYTES_SENT = 7,
  // Objects to be deleted.
  BB_PROGRESS_DELETES_TOTAL = 8,
  // Objects deleted.
  BB_PROGRESS_DELETES_DONE = 9,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum bb_progress_value bb_progress_value;
#else
typedef uint32_t bb_progress_value;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// A number of `bb_summary`.
enum bb_summary_value
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  // Published objects.
  BB_SUMMARY_PUBLISHED = 1,
  // Their bytes.
  BB_SUMMARY_PUBLISHED_BYTES = 2,
  // Keys with work left to do.
  BB_SUMMARY_PENDING = 3,
  // Unfinished multipart uploads.
  BB_SUMMARY_OPEN_UPLOADS = 4,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum bb_summary_value bb_summary_value;
#else
typedef uint32_t bb_summary_value;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// A number of `bb_state`.
enum bb_state_value
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  // One more with each tree that was published completely.
  BB_STATE_GENERATION = 1,
  // One more with each claim.
  BB_STATE_EPOCH = 2,
  // Keys that the cache did not know as they are published.
  BB_STATE_PULLED = 3,
  // Interrupted runs whose requests may still change objects.
  BB_STATE_IN_DOUBT = 4,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum bb_state_value bb_state_value;
#else
typedef uint32_t bb_state_value;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// The catalog of a cache, mapped into memory. Any number of threads may read it at once, but not while one
// of them refreshes or frees it: give each thread a clone. Processes that are forked may go on using it.
typedef struct bb_catalog bb_catalog;

// The settings of one destination, and the caller's functions. One thread at a time may use it.
typedef struct bb_config bb_config;

// An error: its status, its text, and where it happened. Threads may share it.
typedef struct bb_error bb_error;

// Goes through keys of a catalog in the order of their bytes. One thread at a time may use it.
typedef struct bb_iter bb_iter;

// The files with work left to do. Threads may share it.
typedef struct bb_pending bb_pending;

// The progress of a call at one moment.
typedef struct bb_progress bb_progress;

// The report of a rescan or a plan. Keys are without the prefix, sizes in bytes. Threads may share it.
typedef struct bb_report bb_report;

// The URL of a key, and the version that it serves. Threads may share it.
typedef struct bb_resolved bb_resolved;

// A destination that is open: its cache, its threads, its connections. Any number of threads may use it at
// once; a second `bb_rescan`, `bb_plan` or `bb_pull` at the same time is `BB_ERR_CACHE_LOCKED`. In a process
// that was forked from the one that opened it, every call is `BB_ERR_FORKED`.
typedef struct bb_site bb_site;

// The state in the bucket, as a run or a pull left it. Threads may share it.
typedef struct bb_state bb_state;

// The contents of a cache in a few numbers. Threads may share it.
typedef struct bb_summary bb_summary;

// Gets a record of the log.
//
// @param message the record's message; lives until the callback returns, as does `fields`
// @param fields its key-values as a JSON object on one line, such as {"key":"a.txt","attempts":"1"}
typedef void (*bb_log_callback)(void *user_data, bb_log_level level, const char *message, const char *fields);

// Gets the progress of a call. Returns 0 to go on, and anything else to cancel the call.
//
// @param progress lives until the callback returns
typedef int (*bb_progress_callback)(void *user_data, const bb_progress *progress);

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// Returns the name of a status, such as "BB_ERR_CONNECT", or "unknown status". The text lives as long as the
// program.
//
// @param status a bb_status
const char *bb_status_name(uint32_t status);

// Returns the status of an error; `BB_OK` for NULL.
bb_status bb_error_status(const bb_error *error);

// Returns what is wrong and what to do, on one line; "no error" for NULL. The text lives as long as the
// error.
const char *bb_error_text(const bb_error *error);

// Returns the key that the error is about, without the prefix; NULL if it is about none. Lives as long as
// the error.
const char *bb_error_key(const bb_error *error);

// Returns the path that the error is about, byte for byte; NULL if it is about none. Lives as long as the
// error.
const char *bb_error_path(const bb_error *error);

// Returns the store's own code, such as "NoSuchBucket"; NULL if the store sent none. Lives as long as the
// error.
const char *bb_error_code(const bb_error *error);

// Returns the store's ID of the request that failed, to give to its operator; NULL if there is none. Lives
// as long as the error.
const char *bb_error_request_id(const bb_error *error);

// Returns true if the same call may succeed later with nothing changed.
bool bb_error_is_retryable(const bb_error *error);

// Returns how often the request was tried; 0 if none was sent.
uint32_t bb_error_attempts(const bb_error *error);

// Frees an error. NULL is fine. Not for those that a report has lent.
void bb_error_free(bb_error *error);

// Returns a count of the progress; 0 for a number that is not known.
//
// @param value a bb_progress_value
uint64_t bb_progress_count(const bb_progress *progress, uint32_t value);

// Makes a configuration with nothing set. Free it with `bb_config_free`.
//
// @param error receives an error if the status is not `BB_OK`; may be NULL, here and everywhere
bb_status bb_config_new(bb_config **config, bb_error **error);

// Reads the settings of a destination from a configuration file (TOML). Paths in it are relative to its
// folder. Nothing that it refers to is read yet.
//
// @param path the path of the file
// @param destination NAME of a table `[destination.NAME]`; NULL if the file has one only
bb_status bb_config_load(const char *path, const char *destination, bb_config **config, bb_error **error);

// Sets a setting. The chapter "settings" of the manual lists the names. A list gets one more item; anything
// else is replaced.
//
// @param name such as "endpoint_url"
// @param value as in a configuration file, such as "16 MiB" or "true"
bb_status bb_config_set(bb_config *config, const char *name, const char *value, bb_error **error);

// Sets `bucket` and `prefix` from a URL.
//
// @param url s3://BUCKET/PREFIX
bb_status bb_config_set_url(bb_config *config, const char *url, bb_error **error);

// Gets the value of a setting, or its default. Gives NULL if it has none or is a secret. Free it with
// `bb_string_free`.
bb_status bb_config_get(const bb_config *config, const char *name, char **value, bb_error **error);

// Checks every setting that needs no secret. Opens nothing and sends nothing.
bb_status bb_config_check(const bb_config *config, bb_error **error);

// Takes the proxy from the environment (`HTTPS_PROXY`, `NO_PROXY`, …) where `proxy` is not set.
bb_status bb_config_proxy_from_env(bb_config *config, bb_error **error);

// Sets the function that gets the log of sites that are opened with this configuration.
//
// @param level the least severe `bb_log_level` to get
// @param callback NULL for none. Several threads of the site may call it at once, also after this
//     configuration was freed. It must return soon, must not throw or jump out, and may call no function on
//     the site but `bb_site_cancel`
// @param user_data is passed to the callback; it has to live until the site is closed or freed
bb_status bb_config_on_log(bb_config *config,
                           uint32_t level,
                           bb_log_callback callback,
                           void *user_data,
                           bb_error **error);

// Sets the function that gets the progress of `bb_rescan`, `bb_plan` and `bb_pull` on sites that are opened
// with this configuration.
//
// @param callback NULL for none. It is called up to ten times a second where something has changed, and once
//     at the end; never by two threads at once within one call, and by another thread than the one that waits
//     in the call. Returning other than 0 cancels that call, and no other. It must not throw or jump out, and
//     may call no function on the site but `bb_site_cancel`
// @param user_data is passed to the callback; it has to live until the site is closed or freed. A
//     `bb_site_open` that fails does not keep it
bb_status bb_config_on_progress(bb_config *config,
                                bb_progress_callback callback,
                                void *user_data,
                                bb_error **error);

// Frees a configuration. NULL is fine. Sites that were opened with it go on working.
void bb_config_free(bb_config *config);

// Opens a destination: opens its cache and starts its threads (`batch_size`, 10 unless set). Waits up to
// `lock_wait` (10 s unless set) if another process has the cache open. Sends no request, unless `credentials`
// is "chain" and the first place that has some needs one. Needs `bucket`, `cache` and credentials, and for
// `bb_rescan` and `bb_plan` `root`. Open it after any fork, in the one process that publishes. If it fails,
// its threads have ended.
//
// @param site receives a handle; close it with `bb_site_close`, and free it with `bb_site_free`
bb_status bb_site_open(const bb_config *config, bb_site **site, bb_error **error);

// Cancels the calls that are under way on the site (`bb_rescan`, `bb_plan`, `bb_pull`, `bb_upload_file`,
// `bb_delete_file`), and those that begin later, until `bb_site_reset_cancel`. They return within a few
// seconds. What is finished is recorded. Any thread may call it, a callback too, but no signal handler. On a
// closed site it does nothing.
bb_status bb_site_cancel(const bb_site *site, bb_error **error);

// Lets calls run again after `bb_site_cancel`. Those that were cancelled stay so.
bb_status bb_site_reset_cancel(const bb_site *site, bb_error **error);

// Closes a site: closes its cache and connections, and waits until its threads have ended. Only a look-up of
// a host name that the system has not answered yet may outlive it. `BB_ERR_BUSY` while another thread is
// inside a call on it: then it stays open. `BB_ERR_CACHE` if the cache's file was removed or replaced
// meanwhile: it is closed all the same. Later calls that need it open are `BB_ERR_CLOSED`.
bb_status bb_site_close(bb_site *site, bb_error **error);

// Frees a site, and closes it if it is open. NULL is fine. No other thread may be inside a call on it. In a
// forked process its memory is left as it is.
void bb_site_free(bb_site *site);

// Publishes the tree: walks `root`, uploads new and changed files, deletes the objects of files that are
// gone, and returns when all of that is done and recorded.
//
// `BB_OK` says that there is a report, not that everything was published: ask `bb_report_is_complete`. A
// store that cannot be reached is no error but an outcome. What was left undone is tried again by the next
// call.
//
// @param report receives the report; free it with `bb_report_free`
bb_status bb_rescan(const bb_site *site, bb_report **report, bb_error **error);

// Tells what `bb_rescan` would do, and records nothing. The report's counts and lists are those of a dry
// run.
//
// @param report receives the report; free it with `bb_report_free`
bb_status bb_plan(const bb_site *site, bb_report **report, bb_error **error);

// Makes the cache and its catalog a copy of the state in the bucket, on a machine that has no tree and may
// only read. Needs `state` set to "bucket" or a URL. Costs one request if nothing has changed.
// `BB_ERR_NOT_FOUND` if nothing was published with its state there.
//
// @param state receives the state; free it with `bb_state_free`. May be NULL
bb_status bb_pull(const bb_site *site, bb_state **state, bb_error **error);

// Returns the outcome; `BB_OUTCOME_NONE` for NULL.
bb_outcome bb_report_outcome(const bb_report *report);

// Returns the name of an outcome: "unchanged", "published", "partial", "local_only" or "none". Lives as long
// as the program.
//
// @param outcome a bb_outcome
const char *bb_outcome_name(uint32_t outcome);

// Returns true if the bucket is now as the tree was: the outcome is unchanged or published. False for NULL.
bool bb_report_is_complete(const bb_report *report);

// Returns the reason why it stopped early, if it did.
bb_stop_reason bb_report_stop_reason(const bb_report *report);

// Returns a count of the report; 0 for one that is not known.
//
// @param count a bb_count
uint64_t bb_report_count(const bb_report *report, uint32_t count);

// Returns the number of items of a list, at most 100,000.
//
// @param list a bb_list
size_t bb_report_list_length(const bb_report *report, uint32_t list);

// Returns an item of a list; NULL beyond the last one. Lives as long as the report.
//
// @param list a bb_list
const char *bb_report_item(const bb_report *report, uint32_t list, size_t index);

// Returns a failure; NULL beyond the last one. The report lends it: do not free it.
//
// @param index less than `BB_COUNT_FAILED`, of which the first 100,000 are there
const bb_error *bb_report_failure(const bb_report *report, size_t index);

// Returns the first error that showed the store unreachable or out of order; NULL if none did. The report
// lends it: do not free it.
const bb_error *bb_report_outage(const bb_report *report);

// Returns the state in the bucket; NULL if the state is local or was not read. The report lends it: do not
// free it.
const bb_state *bb_report_state(const bb_report *report);

// Returns all of it as JSON on one line, as `brigade sync --json` or `brigade plan --json` prints it; NULL
// for NULL. Lives as long as the report.
const char *bb_report_json(const bb_report *report);

// Frees a report and all that it has lent. NULL is fine.
void bb_report_free(bb_report *report);

// Returns a number of the state; 0 for one that is not known.
//
// @param value a bb_state_value
uint64_t bb_state_count(const bb_state *state, uint32_t value);

// Gets the order of the tree, such as a build number. Returns false, and writes nothing, if it has none.
bool bb_state_order(const bb_state *state, uint64_t *order);

// Returns the last publisher and when it claimed; NULL if there was none. Lives as long as the state.
const char *bb_state_published_by(const bb_state *state);

// Returns the other publisher that holds the claim; NULL if none does. Lives as long as the state.
const char *bb_state_claimed_by(const bb_state *state);

// Returns all of it as JSON, as `state` in `brigade status --json`. Lives as long as the state.
const char *bb_state_json(const bb_state *state);

// Frees a state. NULL is fine. Not for one that a report has lent.
void bb_state_free(bb_state *state);

// Gets the files with work left to do, as of the last rescan, in the order of their keys.
//
// @param pending receives a handle; free it with `bb_pending_free`
bb_status bb_site_pending(const bb_site *site, bb_pending **pending, bb_error **error);

// Returns the number of files; 0 for NULL.
size_t bb_pending_count(const bb_pending *pending);

// Returns the key of a file; NULL beyond the last one. Lives as long as the handle.
const char *bb_pending_key(const bb_pending *pending, size_t index);

// Returns the work that is left for a file.
bb_pending_kind bb_pending_kind_at(const bb_pending *pending, size_t index);

// Returns the size of a file in bytes; of a removed one that of its object.
uint64_t bb_pending_bytes(const bb_pending *pending, size_t index);

// Frees a list. NULL is fine.
void bb_pending_free(bb_pending *pending);

// Gets what the cache records, as `brigade status` does. Sends no request.
//
// @param summary receives a handle; free it with `bb_summary_free`
bb_status bb_site_summary(const bb_site *site, bb_summary **summary, bb_error **error);

// Returns a number of the summary; 0 for one that is not known.
//
// @param value a bb_summary_value
uint64_t bb_summary_count(const bb_summary *summary, uint32_t value);

// Returns true if the last rescan left the store as the tree was.
bool bb_summary_is_synced(const bb_summary *summary);

// Returns the destination that the cache is bound to; NULL until its first rescan. Lives as long as the
// handle.
const char *bb_summary_destination(const bb_summary *summary);

// Frees a summary. NULL is fine.
void bb_summary_free(bb_summary *summary);

// Gets a counter of the site.
//
// @param metric a bb_metric
bb_status bb_site_metric(const bb_site *site, uint32_t metric, uint64_t *value, bb_error **error);

// Uploads one file, whether or not it is in the tree. The cache does not record it: `bb_rescan` looks after
// the files of the tree.
//
// @param path the file
// @param key without the prefix
// @param key_length its length in bytes, or `BB_NUL_TERMINATED`
// @param url receives the public URL; free it with `bb_string_free`. May be NULL
bb_status bb_upload_file(const bb_site *site,
                         const char *path,
                         const char *key,
                         size_t key_length,
                         char **url,
                         bb_error **error);

// Deletes one object, whoever stored it. One that does not exist is `BB_OK`.
//
// @param key without the prefix
// @param key_length its length in bytes, or `BB_NUL_TERMINATED`
bb_status bb_delete_file(const bb_site *site, const char *key, size_t key_length, bb_error **error);

// Gets the public URL that a key has or would have, whether or not it is published.
//
// @param key without the prefix
// @param key_length its length in bytes, or `BB_NUL_TERMINATED`
// @param url receives the URL; free it with `bb_string_free`
bb_status bb_url(const bb_site *site, const char *key, size_t key_length, char **url, bb_error **error);

// Looks up where a key is to be read now, in the cache. Servers with many readers use `bb_catalog_get`.
// `BB_ERR_NOT_FOUND`, without an error, if the key is neither published nor on disk.
//
// @param key without the prefix
// @param key_length its length in bytes, or `BB_NUL_TERMINATED`
// @param found receives the answer; free it with `bb_resolved_free`
bb_status bb_resolve(const bb_site *site,
                     const char *key,
                     size_t key_length,
                     bb_resolved **found,
                     bb_error **error);

// Returns the URL to use now. Lives as long as the handle.
const char *bb_resolved_url(const bb_resolved *found);

// Gets the size in bytes of the version that the URL serves. Returns false, and writes nothing, if it is not
// known.
bool bb_resolved_size(const bb_resolved *found, uint64_t *size);

// Gets the modification time of that version's file, in seconds since 1970. Returns false, and writes
// nothing, if it is not known.
bool bb_resolved_modified(const bb_resolved *found, int64_t *seconds);

// Returns the digest of that version, as `brigade url --json` prints it: "sha256:" and 64 hex digits, or for
// a multipart upload "sha256/PART_SIZE:" and those of its parts' SHA-256s. NULL if it is not known. Lives as
// long as the handle.
const char *bb_resolved_digest(const bb_resolved *found);

// Returns the SHA-256 of the whole file as 64 hex digits; NULL if it is not known. For a multipart upload it
// is known if `whole_file_digest` is set. Lives as long as the handle.
const char *bb_resolved_sha256(const bb_resolved *found);

// Returns the state of the key.
bb_key_state bb_resolved_state(const bb_resolved *found);

// Frees an answer. NULL is fine. Not for those that an iterator has lent.
void bb_resolved_free(bb_resolved *found);

// Opens a catalog and verifies its checksum. `bb_rescan` and `bb_pull` write it beside the cache, as
// CACHE.catalog.
//
// @param path the path of the catalog
// @param catalog receives a handle; free it with `bb_catalog_free`
bb_status bb_catalog_open(const char *path, bb_catalog **catalog, bb_error **error);

// Makes another handle on the same catalog, for another thread. Costs little: the file is mapped once.
//
// @param clone receives a handle; free it with `bb_catalog_free`
bb_status bb_catalog_clone(const bb_catalog *catalog, bb_catalog **clone, bb_error **error);

// Looks up where a key is to be read now. `BB_ERR_NOT_FOUND`, without an error, if the key is neither
// published nor on disk.
//
// @param key without the prefix, as in the URL path before it is encoded; one that is not UTF-8 is not found
// @param key_length its length in bytes, or `BB_NUL_TERMINATED`
// @param found receives the answer; free it with `bb_resolved_free`
bb_status bb_catalog_get(const bb_catalog *catalog,
                         const char *key,
                         size_t key_length,
                         bb_resolved **found,
                         bb_error **error);

// Checks with one stat for a newer version of the file and maps it. On an error the current version stays.
// No other thread may use this handle meanwhile; clones and iterators keep their version.
//
// @param changed receives true if there was a newer version; may be NULL
bb_status bb_catalog_refresh(bb_catalog *catalog, bool *changed, bb_error **error);

// Returns the number of keys; 0 for NULL.
uint64_t bb_catalog_count(const bb_catalog *catalog);

// Returns true if a lookup found damage, so that answers may be incomplete. The next rescan that changes
// something writes the file anew.
bool bb_catalog_is_damaged(const bb_catalog *catalog);

// Frees a catalog. NULL is fine. Iterators over it go on working.
void bb_catalog_free(bb_catalog *catalog);

// Begins to go through the keys that start with a prefix. It is before the first key: call `bb_iter_next`.
//
// @param prefix of the keys; "" for all
// @param prefix_length its length in bytes, or `BB_NUL_TERMINATED`
// @param iter receives a handle; free it with `bb_iter_free`
bb_status bb_catalog_iter(const bb_catalog *catalog,
                          const char *prefix,
                          size_t prefix_length,
                          bb_iter **iter,
                          bb_error **error);

// Goes to the next key. `BB_DONE` if there are no more.
bb_status bb_iter_next(bb_iter *iter, bb_error **error);

// Returns the current key; NULL before the first and after the last. Lives until the next call of
// `bb_iter_next` or `bb_iter_free`.
const char *bb_iter_key(const bb_iter *iter);

// Returns where the current key is to be read; NULL as above. The iterator lends it until the next call: do
// not free it.
const bb_resolved *bb_iter_resolved(const bb_iter *iter);

// Frees an iterator. NULL is fine.
void bb_iter_free(bb_iter *iter);

// Returns the version of the library, such as "0.1.0". The text lives as long as the program.
const char *bb_version(void);

// Frees a text that a function of this library has given to the caller (`char *`, not `const char *`). NULL is fine.
void bb_string_free(char *text);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* BUCKET_BRIGADE_H */
