//! The operations of S3, each as S3 names it.

pub(crate) mod delete_objects;
pub(crate) mod get_object;
pub(crate) mod head_object;
pub(crate) mod list_objects;
pub(crate) mod multipart;
pub(crate) mod multipart_lookup;
pub(crate) mod put_object;
