//! Settings: plain values, checked once, before anything is sent.

mod rescan;
mod s3;

pub use self::rescan::{FirstRun, MaxDelete, RescanConfig, Verify};
pub use self::s3::S3Config;
pub(crate) use self::s3::{S3Settings, UPLOAD_TOKEN};
