//! How a tree gets to a store and stays there.

mod batch;
pub(crate) mod cache;
pub(crate) mod catalog;
mod conclude;
mod contents;
mod deletes;
mod flow;
mod large;
mod larges;
mod mailbox;
pub(crate) mod orchestrator;
mod pages;
mod parts;
mod plan;
mod reach;
pub(crate) mod record;
mod recorder;
pub(crate) mod report;
pub(crate) mod run;
mod survey;
mod tally;
pub(crate) mod uploads;
mod verify;
mod work;
