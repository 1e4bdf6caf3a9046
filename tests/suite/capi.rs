//! The C ABI: its header, its rules, C and C++ programs.

mod apache;
mod constants;
mod contract;
mod examples;
mod header;
mod programs;
