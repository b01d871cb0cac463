//! Nodes inside the test process: on a broker in memory, and on a real server.
//!
//! `ground` gives the brokers, `gate` holds handlers where a test wants them, `probe`, `ledger`,
//! `desk`, `tally`, `letterbox`, `newsroom` and `beacon` are the actors. Every other module is a theme.

mod ground;
mod gate;
mod probe;
mod ledger;
mod desk;
mod letterbox;
mod beacon;
mod newsroom;
mod tally;

mod turns;
mod limits;
mod chains;
mod circles;
mod activation;
mod faults;
mod fragile;
mod watches;
mod always;
mod timers;
mod budget;
mod bypass;
mod frames;
mod transparency;
mod services;
mod handover;
mod order;
mod taken;
mod late;
mod outsiders;
mod durable;
mod hot;
mod leaks;
mod looks;
mod writers;
mod retries;
mod commits;
mod tells;
mod dead;
mod bell;
mod following;
mod reminders;
mod events;
mod builds;
mod connection;
mod embedding;
mod exposed;
mod settings;
mod spin;
mod transport;
