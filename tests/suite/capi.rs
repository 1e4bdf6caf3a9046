//! The C ABI: its header, its rules, C and C++ programs.

mod constants;
mod contract;
mod examples;
mod header;
mod programs;
