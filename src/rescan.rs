//! How a tree gets to a store and stays there.

pub(crate) mod bucket_state;
pub(crate) mod config;
pub(crate) mod context;
mod delete;
mod dispatch;
mod first_run;
pub(crate) mod multipart;
pub(crate) mod options;
pub(crate) mod orchestrator;
mod outcome;
mod plan;
mod preflight;
pub(crate) mod report;
mod session;
mod upload;
mod verify;
