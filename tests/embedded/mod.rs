//! Nodes inside the test process: on a broker in memory, and on a real server.
//!
//! `ground` gives the brokers, `gate` holds handlers where a test wants them, `probe`, `ledger` and
//! `desk` are the actors. Every other module is a theme.

mod ground;
mod gate;
mod probe;
mod ledger;
mod desk;

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
mod writers;
mod retries;
mod commits;
mod events;
mod builds;
mod connection;
mod embedding;
mod exposed;
mod settings;
mod spin;
mod transport;
