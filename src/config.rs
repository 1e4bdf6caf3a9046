//! Settings: plain values, checked once, before anything is sent.

mod address;
mod checks;
mod rescan;
mod s3;

pub use self::address::S3Address;
pub(crate) use self::checks::UPLOAD_TOKEN;
pub use self::rescan::{FirstRun, MaxDelete, RescanConfig, Verify};
pub use self::s3::S3Config;
pub(crate) use self::s3::S3Settings;
