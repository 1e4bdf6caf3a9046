//! Settings by name.

use std::ffi::{c_char, c_void};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use crate::capi::boundary::{Fault, Place, c_text, free, os_text, required, text};
use crate::capi::callbacks::{
    LogCallback, ProgressCallback, bb_log_callback, bb_progress_callback, level_of,
};
use crate::capi::error::bb_error;
use crate::capi::guard::guard;
use crate::capi::status::bb_status;
use crate::error::StorageError;
use crate::settings::config::{Config, setting_of};
use crate::settings::file::ConfigFile;

/// The settings of one destination, and the caller's functions. One thread at a time may use it.
pub struct bb_config {
    pub(super) config: Config,
    pub(super) log: Option<LogCallback>,
    pub(super) progress: Option<ProgressCallback>,
}

impl From<Config> for bb_config {
    fn from(config: Config) -> Self {
        Self { config, log: None, progress: None }
    }
}

/// Makes a configuration with nothing set. Free it with `bb_config_free`.
///
/// @param error receives an error if the status is not `BB_OK`; may be NULL, here and everywhere
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bb_config_new(config: *mut *mut bb_config, error: *mut *mut bb_error) -> bb_status {
    guard(error, || {
        // SAFETY: NULL or a place for a pointer.
        let place = unsafe { Place::new(config, "config") }?;
        place.give(bb_config::from(Config::new()));
        Ok(())
    })
}

/// Reads the settings of a destination from a configuration file (TOML). Paths in it are relative to its
/// folder. Nothing that it refers to is read yet.
///
/// @param path the path of the file
/// @param destination NAME of a table `[destination.NAME]`; NULL if the file has one only
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bb_config_load(
    path: *const c_char,
    destination: *const c_char,
    config: *mut *mut bb_config,
    error: *mut *mut bb_error,
) -> bb_status {
    guard(error, || {
        // SAFETY: NULL or a place for a pointer; a text, and one that may be NULL.
        let (place, path) = unsafe { (Place::new(config, "config")?, os_text(path, "path")?) };
        let name = if destination.is_null() {
            None
        } else {
            // SAFETY: a text.
            Some(unsafe { text(destination, "destination") }?)
        };
        let file = ConfigFile::load(Path::new(path))?;
        place.give(bb_config::from(destination_of(&file, name)?.clone()));
        Ok(())
    })
}

/// Returns the destination of a name, or the only one.
fn destination_of<'a>(file: &'a ConfigFile, name: Option<&str>) -> Result<&'a Config, StorageError> {
    match (name, file.destinations()) {
        (Some(name), _) => file.destination(name),
        (None, [only]) => Ok(only),
        (None, several) => {
            let names: Vec<_> = several.iter().filter_map(Config::name).collect();
            let why = format!("{} has several: name one of {}", file.path().display(), names.join(", "));
            Err(StorageError::config("destination", why))
        }
    }
}

/// Sets a setting. The chapter "settings" of the manual lists the names. A list gets one more item; anything
/// else is replaced.
///
/// @param name such as "endpoint_url"
/// @param value as in a configuration file, such as "16 MiB" or "true"
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bb_config_set(
    config: *mut bb_config,
    name: *const c_char,
    value: *const c_char,
    error: *mut *mut bb_error,
) -> bb_status {
    guard(error, || {
        // SAFETY: NULL or a live handle that no other thread uses.
        let config = required(unsafe { config.as_mut() }, "config")?;
        // SAFETY: texts.
        let (name, value) = unsafe { (text(name, "name")?, os_text(value, "value")?) };
        Ok(config.config.set(name, value)?)
    })
}

/// Sets `bucket` and `prefix` from a URL.
///
/// @param url s3://BUCKET/PREFIX
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bb_config_set_url(
    config: *mut bb_config,
    url: *const c_char,
    error: *mut *mut bb_error,
) -> bb_status {
    guard(error, || {
        // SAFETY: NULL or a live handle that no other thread uses; a text.
        let (config, url) = unsafe { (required(config.as_mut(), "config")?, text(url, "url")?) };
        Ok(config.config.set_url(url, "url")?)
    })
}

/// Gets the value of a setting, or its default. Gives NULL if it has none or is a secret. Free it with
/// `bb_string_free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bb_config_get(
    config: *const bb_config,
    name: *const c_char,
    value: *mut *mut c_char,
    error: *mut *mut bb_error,
) -> bb_status {
    guard(error, || {
        // SAFETY: NULL or a live handle; a text; NULL or a place for a pointer.
        let (config, name, place) = unsafe {
            (required(config.as_ref(), "config")?, text(name, "name")?, Place::new(value, "value")?)
        };
        setting_of(name)?;
        place.give_text(config.config.get_bytes(name).map(|value| c_text(value.into_vec())));
        Ok(())
    })
}

/// Checks every setting that needs no secret. Opens nothing and sends nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bb_config_check(config: *const bb_config, error: *mut *mut bb_error) -> bb_status {
    guard(error, || {
        // SAFETY: NULL or a live handle.
        Ok(required(unsafe { config.as_ref() }, "config")?.config.check()?)
    })
}

/// Takes the proxy from the environment (`HTTPS_PROXY`, `NO_PROXY`, …) where `proxy` is not set.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bb_config_proxy_from_env(
    config: *mut bb_config,
    error: *mut *mut bb_error,
) -> bb_status {
    guard(error, || {
        // SAFETY: NULL or a live handle that no other thread uses.
        required(unsafe { config.as_mut() }, "config")?.config.proxy_from_env();
        Ok(())
    })
}

/// Sets the function that gets the log of sites that are opened with this configuration.
///
/// @param level the least severe `bb_log_level` to get
/// @param callback NULL for none. Several threads of the site may call it at once, also after this
///     configuration was freed. It must return soon, must not throw or jump out, and may call no function on
///     the site but `bb_site_cancel`
/// @param user_data is passed to the callback; it has to live until the site is closed or freed
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bb_config_on_log(
    config: *mut bb_config,
    level: u32,
    callback: bb_log_callback,
    user_data: *mut c_void,
    error: *mut *mut bb_error,
) -> bb_status {
    guard(error, || {
        // SAFETY: NULL or a live handle that no other thread uses.
        let config = required(unsafe { config.as_mut() }, "config")?;
        let Some(callback) = callback else {
            config.log = None;
            return Ok(());
        };
        let level = level_of(level).ok_or_else(|| Fault::argument("level", "is no bb_log_level"))?;
        config.log = Some(LogCallback::new(level, callback, user_data));
        Ok(())
    })
}

/// Sets the function that gets the progress of `bb_rescan`, `bb_plan` and `bb_pull` on sites that are opened
/// with this configuration.
///
/// @param callback NULL for none. It is called up to ten times a second where something has changed, and once
///     at the end; never by two threads at once within one call, and by another thread than the one that waits
///     in the call. Returning other than 0 cancels that call, and no other. It must not throw or jump out, and
///     may call no function on the site but `bb_site_cancel`
/// @param user_data is passed to the callback; it has to live until the site is closed or freed. A
///     `bb_site_open` that fails does not keep it
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bb_config_on_progress(
    config: *mut bb_config,
    callback: bb_progress_callback,
    user_data: *mut c_void,
    error: *mut *mut bb_error,
) -> bb_status {
    guard(error, || {
        // SAFETY: NULL or a live handle that no other thread uses.
        let config = required(unsafe { config.as_mut() }, "config")?;
        config.progress = callback.map(|callback| ProgressCallback::new(callback, user_data));
        Ok(())
    })
}

/// Frees a configuration. NULL is fine. Sites that were opened with it go on working.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bb_config_free(config: *mut bb_config) {
    // SAFETY: NULL or a handle that the caller owns.
    unsafe { free(config) };
}
