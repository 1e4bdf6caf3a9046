//! How a tree gets to a store and stays there.

mod batch;
pub(crate) mod cache;
mod conclude;
mod flow;
mod mailbox;
pub(crate) mod orchestrator;
mod plan;
pub(crate) mod record;
mod recorder;
pub(crate) mod report;
pub(crate) mod run;
mod survey;
mod verify;
mod work;
