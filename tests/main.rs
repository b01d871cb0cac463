//! The whole against real parts: a real nats-server, the real `nats` CLI, the shop's own processes.
//!
//! `harness` starts and stops those parts; every other module is a theme. A test whose name begins
//! with the id of a requirement (`c3_…`, `r6_…`) proves it. Nothing here waits without a bound, and
//! nothing is left running, whether a test passes or panics.

mod harness;

mod cli;

mod discovery;

mod starting;

mod leaving;

mod processes;

mod takeover;

mod heartbeats;
mod watching;

mod rolling;

mod resending;

mod stale;

mod keeping;
mod telling;

mod mapping;

mod doctor;

mod demo;

mod examples;

mod embedded;

mod rigs;

mod tidy;
