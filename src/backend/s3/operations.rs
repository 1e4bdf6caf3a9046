//! The operations of S3, each in the file of its S3 name. Each builds its request, retries it and reads the response.

mod conditional;
pub(crate) mod copy_object;
pub(crate) mod delete_objects;
mod diagnose;
pub(crate) mod first_request;
pub(crate) mod get_object;
pub(crate) mod head_object;
pub(crate) mod list_objects;
pub(crate) mod multipart;
pub(crate) mod multipart_lookup;
pub(crate) mod put_object;
pub(crate) mod state_reads;
pub(crate) mod state_writes;
