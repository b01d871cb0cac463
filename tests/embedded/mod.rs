//! Nodes inside the test process: on a broker in memory, and on a real server.
//!
//! `ground` gives the brokers, `gate` holds handlers where a test wants them, `probe`, `ledger`,
//! `desk` and `tally` are the actors. Every other module is a theme.

mod ground;
mod gate;
mod probe;
mod ledger;
mod desk;
mod tally;

mod turns;
mod limits;
mod chains;
mod activation;
mod faults;
mod fragile;
mod bypass;
mod transparency;
mod services;
mod handover;
mod outsiders;
mod durable;
mod hot;
mod leaks;
mod looks;
mod retries;
mod events;
mod builds;
mod connection;
mod embedding;
mod exposed;
mod settings;
mod spin;
mod transport;
